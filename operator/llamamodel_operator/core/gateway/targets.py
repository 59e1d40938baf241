"""What a request is for, by its request-target (RFC 9112, 3.2)."""

from __future__ import annotations

import re

__all__ = ["origin_form"]

_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def origin_form(target: str) -> str:
    """The path and the query. Of an absolute form, which every server has to accept (RFC 9112, 3.2.2), the rest is left
    out: this gateway serves the same under all names that lead to it, and is no proxy. What has another form stays.

    Args:
        target: as the client wrote it.
    """
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith("/") else f"/{rest}"
