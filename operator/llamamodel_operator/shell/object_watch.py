"""Lists and watches all objects of a kind, and keeps of each what is wanted: heartbeats and the like are passed over.

Not one of kopf's watches: where a kind may not be read, as with rights in single namespaces alone, or is not there, as
in older clusters, kopf would give up all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

import aiohttp
import orjson

from llamamodel_operator.shell.client import ApiError, ClusterClient, Resource

__all__ = ["ObjectWatch"]

_log = logging.getLogger(__name__)

_REFUSED_SEC = 300.0
"""Between tries where a kind may not be read, or is not there: that may change later."""
_AGAIN_SEC = 5.0
_WATCH_SEC = 280
"""How long one watch lasts: it ends before load balancers cut it."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SEC + 30)
_CHUNK = 200
_LONGEST_EVENT_BYTES = 8 << 20
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError)

T = TypeVar("T")


class ObjectWatch(Generic[T]):
    """The objects of a kind, as they are now."""

    def __init__(
        self,
        resource: Resource,
        *,
        keep: Callable[[Mapping[str, Any]], T | None],
        on_change: Callable[[], None],
        so: str,
        level: int = logging.INFO,
        namespace: str | None = None,
        selector: str = "",
        needed: bool = False,
    ) -> None:
        """Args:
        keep: what is wanted of an object; None where it is not wanted at all.
        on_change: called whenever one of these is another.
        so: what follows where the objects cannot be read, for the log.
        level: at which that is logged.
        namespace: the only one that is looked at; None: all, or a kind that belongs to none.
        selector: labels that the objects must have.
        needed: whoever asks has rights to read them and cannot do without: a refusal, as API servers make some while
            they start, and as rights that are exchanged bring some, takes nothing away that is known, and is soon over.
        """
        self._resource = resource
        self._keep = keep
        self._on_change = on_change
        self._so = so
        self._level = level
        self._namespace = namespace
        self._needed = needed
        self._selected = {"labelSelector": selector} if selector else {}
        self.found: dict[str, T] | None = None
        """By name, or by `namespace/name`; None where they may not be read, or have not been yet."""
        self.first = asyncio.Event()
        """They were read once, or may not be."""

    async def run(self, client: ClusterClient, session: aiohttp.ClientSession) -> None:
        """For ever."""
        while True:
            try:
                version = await self._list(client, session)
                self.first.set()
                while version:
                    version = await self._watch(client, session, version)
            except ApiError as error:
                refused = error.status in (401, 403, 404) and not self._needed
                if refused and self.found is not None:
                    self.found = None
                    self._on_change()
                if not self.first.is_set() or not refused:
                    self._cannot(error.message)
                self.first.set()
                await asyncio.sleep(_REFUSED_SEC if refused else _AGAIN_SEC)
            except _UNREACHABLE as error:
                self._cannot(str(error) or type(error).__name__)
                await asyncio.sleep(_AGAIN_SEC)

    def _cannot(self, why: str) -> None:
        _log.log(self._level, "%s cannot be read, so %s: %s", self._resource.plural, self._so, why)

    async def _list(self, client: ClusterClient, session: aiohttp.ClientSession) -> str:
        """Reads all of them; the version from which on a watch tells of changes."""
        found: dict[str, T] = {}
        params = {"limit": str(_CHUNK), **self._selected}
        while True:
            async with session.get(self._url(client), params=params) as response:
                answer = _read(response.status, await response.read())
            for raw in answer.get("items") or ():
                if (kept := self._keep(raw)) is not None:
                    found[_name(raw)] = kept
            metadata = answer.get("metadata") or {}
            if not (token := metadata.get("continue")):
                break
            params["continue"] = token
        if found != self.found:
            self.found = found
            self._on_change()
        return str(metadata.get("resourceVersion") or "")

    async def _watch(self, client: ClusterClient, session: aiohttp.ClientSession, version: str) -> str:
        """Takes note of changes until the watch ends; the version to go on from, empty where all must be read anew."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SEC),
            **self._selected,
        }
        async with session.get(self._url(client), params=params, timeout=_TIMEOUT) as response:
            if response.status >= 400:
                text = await response.read()
                if response.status == 410:
                    return ""
                _read(response.status, text)
            async for line in _lines(response.content):
                event = orjson.loads(line)
                raw = event.get("object") or {}
                if event.get("type") == "ERROR":
                    return ""
                version = (raw.get("metadata") or {}).get("resourceVersion") or version
                if event.get("type") != "BOOKMARK":
                    self._seen(raw, gone=event.get("type") == "DELETED")
        return version

    def _url(self, client: ClusterClient) -> str:
        return client.server + self._resource.path(namespace=self._namespace)

    def _seen(self, raw: Mapping[str, Any], *, gone: bool) -> None:
        name = _name(raw)
        found = self.found if self.found is not None else {}
        kept = None if gone else self._keep(raw)
        if found.get(name) == kept:
            return  # a heartbeat, or one that is not wanted
        if kept is None:
            del found[name]
        else:
            found[name] = kept
        self.found = found
        self._on_change()


def _name(raw: Mapping[str, Any]) -> str:
    metadata = raw.get("metadata") or {}
    name = metadata.get("name") or ""
    return f"{metadata['namespace']}/{name}" if "namespace" in metadata else name


def _read(status: int, text: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        answer = {}
    if status >= 400 or not isinstance(answer, dict):
        said = answer if isinstance(answer, dict) else {}
        raise ApiError(
            status=status if status >= 400 else 502,
            reason=said.get("reason") or "",
            message=said.get("message") or text[:200].decode(errors="replace"),
        )
    return answer


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; a node with many images has one that is longer than aiohttp's own limit."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_EVENT_BYTES:
            raise ApiError(status=502, reason="", message="a watch event of more than 8 MiB")
        for line in lines:
            if line.strip():
                yield line
