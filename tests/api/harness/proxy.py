"""A proxy between an operator and the API server that can cut connections, or swallow what a watch tells.

The operator speaks plain HTTP to it, so that it sees which connection carries which watch; it speaks TLS to the API
server, as the administrator.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .cluster import Cluster

__all__ = ["Proxy", "running_proxy"]

_CHUNK = 1 << 16


@dataclass(eq=False)
class _Connection:
    """One connection of the operator's, and the plural that it watches, where it does."""

    writer: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    watches: str = ""


@dataclass
class Proxy:
    """Everything passes until a test says otherwise."""

    url: str = ""
    _deaf: set[str] = field(default_factory=set)
    _open: set[_Connection] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def deafen(self, plural: str) -> None:
        """From now on nothing more comes out of the watches of this kind; they stay open, and can be opened."""
        self._deaf.add(plural)

    def heal(self) -> None:
        """Cuts the watches that were swallowed, so that they are opened anew, and lets everything pass."""
        swallowed, self._deaf = self._deaf, set()
        self._loop.call_soon_threadsafe(self._cut, swallowed)

    def cut_all(self) -> None:
        """Cuts every connection once, as a load balancer that restarts."""
        self._loop.call_soon_threadsafe(self._cut, None)

    @property
    def watched(self) -> set[str]:
        """The kinds that are watched now."""
        return {connection.watches for connection in list(self._open) if connection.watches}

    def _cut(self, plurals: set[str] | None) -> None:
        for connection in list(self._open):
            if plurals is None or connection.watches in plurals:
                connection.writer.transport.abort()
                connection.upstream.transport.abort()

    async def serve(self, *, cluster: Cluster, ready: threading.Event, enough: asyncio.Event) -> None:
        """Until `enough`."""
        target = urlsplit(cluster.server)
        tls = ssl.create_default_context(cadata=cluster.authority)
        tls.load_cert_chain(cluster.client_pair)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                answers, upstream = await asyncio.open_connection(target.hostname, target.port, ssl=tls)
                connection = _Connection(writer, upstream)
                self._open.add(connection)
                try:
                    await asyncio.wait(
                        [
                            asyncio.create_task(self._requests(reader, connection)),
                            asyncio.create_task(self._answers(answers, connection)),
                        ],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    self._open.discard(connection)
                    upstream.transport.abort()
            writer.transport.abort()

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await enough.wait()
        server.close()
        self._cut(None)

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                line, _, _ = data.partition(b"\r\n")
                path, _, query = line.split(b" ")[1].partition(b"?") if line.startswith(b"GET ") else (b"", b"", b"")
                watches = b"watch=true" in query
                connection.watches = path.rsplit(b"/", 1)[-1].decode() if watches else ""
                connection.upstream.write(data)
                await connection.upstream.drain()

    async def _answers(self, answers: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while data := await answers.read(_CHUNK):
                if connection.watches not in self._deaf:
                    connection.writer.write(data)
                    await connection.writer.drain()


@contextmanager
def running_proxy(cluster: Cluster) -> Iterator[Proxy]:
    """A proxy in a thread of its own."""
    proxy, ready, enough = Proxy(), threading.Event(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: proxy._loop) as runner:
            runner.run(proxy.serve(cluster=cluster, ready=ready, enough=enough))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30), "the proxy does not start"
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(enough.set)
        thread.join()
