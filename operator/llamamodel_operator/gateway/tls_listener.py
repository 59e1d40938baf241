"""Takes connections with TLS and counts them from their beginning: asyncio tells of them only after the handshake."""

from __future__ import annotations

import asyncio
import socket
from ssl import SSLContext

from llamamodel_operator.gateway.connections import Connections

__all__ = ["TlsListener"]

_HANDSHAKE_SEC = 10.0
_BACKLOG = 128
_AGAIN_SEC = 1.0
"""After accepting failed, as where the process has no descriptor left."""


class TlsListener:
    """Listens from when it is made. Lives in one event loop."""

    def __init__(self, connections: Connections, *, host: str, port: int, context: SSLContext) -> None:
        """Raises OSError where the port is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._connections = connections
        self._context = context
        self._handshakes = set[asyncio.Task[None]]()
        self._accepting = asyncio.create_task(self._accept(), name="accepting")

    async def stop(self) -> None:
        """Takes no more; those that are in their handshake end."""
        tasks = (self._accepting, *self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(_AGAIN_SEC)
                continue
            if self._connections.open + len(self._handshakes) >= self._connections.limits.most:
                accepted.close()
                continue
            task = asyncio.create_task(self._shake_hands(accepted), name="handshake")
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connections, accepted, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_SEC
            )
        except OSError:  # SSLError and TimeoutError, too: the client does not speak TLS, or not ours
            accepted.close()
