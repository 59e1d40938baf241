"""The gateway in front of servers that a test has started, without a cluster: names and addresses are given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.routes import ServedModel, build_routes
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.forwarding import Forwarder, new_session
from llamamodel_operator.gateway.server import serve_gateway
from llamamodel_operator.gateway.sight import Sight

__all__ = ["GivenDirectory", "running_gateway"]


class GivenDirectory(Directory):
    """Knows what it is told, and looks at no cluster."""

    def __init__(self, models: Sequence[ServedModel], addresses: Mapping[str, Sequence[str]]) -> None:
        """`addresses`: of pods, by the full name of their model; may be changed at any time."""
        super().__init__()
        self.routes = build_routes(models)
        self.given = dict(addresses)

    def addresses(self, model: ServedModel) -> tuple[str, ...]:
        return tuple(self.given.get(model.full_name, ()))


@contextmanager
def running_gateway(
    directory: Directory,
    *,
    timeout_sec: int = 60,
    body_limit_bytes: int = 1 << 20,
    registry: CollectorRegistry | None = None,
    access_log: bool = True,
    drain_sec: float = 60,
) -> Iterator[str]:
    """Its URL; it runs in a thread with an event loop of its own. `registry`: its metrics."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def run() -> None:
        async with (
            new_session() as session,
            serve_gateway(
                host="127.0.0.1",
                port=0,
                directory=directory,
                forwarder=Forwarder(directory=directory, session=session, timeout_sec=timeout_sec),
                sight=Sight(registry=registry or CollectorRegistry(), directory=directory, access_log=access_log),
                body_limit_bytes=body_limit_bytes,
                drain_sec=drain_sec,
            ) as port,
        ):
            ports.append(port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert started.wait(10), "the gateway does not start"
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
