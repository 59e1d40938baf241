"""Carries TCP connections from the machine's loopback to an address inside a network namespace.

Runs as a process of its own: ``python3 relay.py LISTENING_FD NETNS_PATH HOST PORT``. The
listening socket was made outside and stays there; what is connected afterwards is inside.
"""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a file, so that it needs nothing but an interpreter.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from localcluster.network import enter_netns

_CHUNK_BYTES = 256 * 1024


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then tell the other side that no more comes."""
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def serve(listener: socket.socket, *, host: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, port, limit=_CHUNK_BYTES)
            with contextlib.closing(far_writer):
                directions = [
                    asyncio.ensure_future(_carry(reader, far_writer)),
                    asyncio.ensure_future(_carry(far_reader, writer)),
                ]
                try:
                    await asyncio.gather(*directions)
                finally:
                    # One side was reset: the other must not wait for it.
                    for direction in directions:
                        direction.cancel()

    server = await asyncio.start_server(relay, sock=listener, limit=_CHUNK_BYTES)
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Relay until killed."""
    descriptor, netns, host, port = arguments
    listener = socket.socket(fileno=int(descriptor))
    enter_netns(Path(netns))
    asyncio.run(serve(listener, host=host, port=int(port)))


if __name__ == "__main__":
    main(sys.argv[1:])
