"""Watches nodes, and keeps of them what decides about GPUs: heartbeats and pulled images are passed over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import orjson

from llamamodel_operator.core.inventory import NodeGpus, node_of
from llamamodel_operator.shell.client import ApiError, ClusterClient, Resource

__all__ = ["NODES", "NodeWatch"]

_log = logging.getLogger(__name__)

NODES = Resource(group="", version="v1", plural="nodes", kind="Node")

_REFUSED_SEC = 300.0
"""Between tries where nodes may not be read: a right may be given later."""
_AGAIN_SEC = 5.0
_PAUSE_SEC = 1.0
"""Between two notices at least: a device plugin that is rolled out changes all nodes at once."""
_WATCH_SEC = 280
"""How long one watch lasts: it ends before load balancers cut it."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SEC + 30)
_CHUNK = 200
_LONGEST_EVENT_BYTES = 8 << 20
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError)


class NodeWatch:
    """The nodes with extended resources, as they are now.

    Not one of kopf's watches: where nodes may not be read, as with rights in single namespaces alone, kopf would give
    up all of them.
    """

    def __init__(self, *, client: ClusterClient | None, on_change: Callable[[], None]) -> None:
        """`client`: None where nodes are not to be looked at. `on_change` is called once a second at most."""
        self._client = client
        self._on_change = on_change
        self._nodes: dict[str, NodeGpus] | None = None
        self._first = asyncio.Event()
        self._due: asyncio.TimerHandle | None = None

    def nodes(self) -> tuple[NodeGpus, ...] | None:
        """Sorted by name; None where they may not be read, or have not been yet. Other threads may ask."""
        known = None if self._nodes is None else dict(self._nodes)
        return None if known is None else tuple(known[name] for name in sorted(known))

    async def ready(self, *, within: float) -> None:
        """Returns when nodes were read once, or may not be, or after that many seconds."""
        if self._client is None:
            return
        try:
            async with asyncio.timeout(within):
                await self._first.wait()
        except TimeoutError:
            _log.warning("nodes have not been read after %.0f s; starting without", within)

    async def run(self) -> None:
        """For ever."""
        if self._client is None:
            await asyncio.Event().wait()
            return
        try:
            async with self._client.new_session() as session:
                while True:
                    await self._once(self._client, session)
        finally:
            if self._due is not None:
                self._due.cancel()

    async def _once(self, client: ClusterClient, session: aiohttp.ClientSession) -> None:
        try:
            version = await self._list(client, session)
            self._first.set()
            while version:
                version = await self._watch(client, session, version)
        except ApiError as error:
            refused = error.status in (401, 403)
            if refused and self._nodes is not None:
                self._nodes = None
                self._notice()
            if not self._first.is_set() or not refused:
                _log.info("nodes cannot be read, so nothing is said about their GPUs: %s", error.message)
            self._first.set()
            await asyncio.sleep(_REFUSED_SEC if refused else _AGAIN_SEC)
        except _UNREACHABLE as error:
            _log.info("nodes cannot be read now: %s", str(error) or type(error).__name__)
            await asyncio.sleep(_AGAIN_SEC)

    async def _list(self, client: ClusterClient, session: aiohttp.ClientSession) -> str:
        """Reads all of them; the version from which on a watch tells of changes."""
        found: dict[str, NodeGpus] = {}
        params = {"limit": str(_CHUNK)}
        while True:
            async with session.get(client.server + NODES.path(namespace=None), params=params) as response:
                answer = _read(response.status, await response.read())
            for raw in answer.get("items") or ():
                if (node := node_of(raw)) is not None:
                    found[node.name] = node
            metadata = answer.get("metadata") or {}
            if not (token := metadata.get("continue")):
                break
            params["continue"] = token
        if found != self._nodes:
            self._nodes = found
            self._notice()
        return str(metadata.get("resourceVersion") or "")

    async def _watch(self, client: ClusterClient, session: aiohttp.ClientSession, version: str) -> str:
        """Takes note of changes until the watch ends; the version to go on from, empty where all must be read anew."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SEC),
        }
        url = client.server + NODES.path(namespace=None)
        async with session.get(url, params=params, timeout=_TIMEOUT) as response:
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

    def _seen(self, raw: Mapping[str, Any], *, gone: bool) -> None:
        name = (raw.get("metadata") or {}).get("name") or ""
        nodes = self._nodes if self._nodes is not None else {}
        node = None if gone else node_of(raw)
        if nodes.get(name) == node:
            return  # a heartbeat, or a node without GPUs
        if node is None:
            del nodes[name]
        else:
            nodes[name] = node
        self._nodes = nodes
        self._notice()

    def _notice(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_PAUSE_SEC, self._tell)

    def _tell(self) -> None:
        self._due = None
        self._on_change()


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
