"""Pages of other origins: those that are allowed may read answers in a browser, and no others. Off without origins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamamodel_operator.gateway.messages import Request, Response

__all__ = ["Cors"]

_REMEMBERED_SEC = 600
_ANY = "*"


class Cors:
    """What the Fetch standard (3.3, CORS protocol) has a server say. Cookies are not asked for: keys are headers."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """`origins`: such as `https://chat.example.com`; `*` is all."""
        self._origins = frozenset(origins)

    def headers(self, request: Request) -> Mapping[str, str]:
        """Of an answer; none where no page asks, or one that is not allowed."""
        origin = request.headers.get("Origin") if self._origins else None
        if origin is None or not self._origins & {origin, _ANY}:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "Retry-After, X-Request-Id",
            "Vary": "Origin",
        }

    def preflight(self, request: Request) -> Response | None:
        """The answer to a browser's question whether a page may ask; None where it is none, or the page may not."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        headers = self.headers(request)
        if not headers:
            return None
        more = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": str(_REMEMBERED_SEC)}
        if asked := request.headers.get("Access-Control-Request-Headers"):
            more["Access-Control-Allow-Headers"] = asked
        return Response(status=204, headers={**headers, **more})
