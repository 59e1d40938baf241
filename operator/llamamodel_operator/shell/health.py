"""/healthz, /readyz and /metrics, served on every replica, whatever the rest of the process does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.registry import Collector

__all__ = ["Check", "measure_loop_lag", "serve"]

_log = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""Says what is wrong, or None."""


@asynccontextmanager
async def serve(
    *,
    host: str,
    port: int,
    registry: CollectorRegistry,
    alive: Mapping[str, Check],
    ready: Mapping[str, Check],
) -> AsyncIterator[int]:
    """Serves until left; yields the port. Raises OSError where the port is taken."""

    async def metrics(_: web.Request) -> web.Response:
        # Read here, where nothing changes meanwhile; written in a thread, as it takes long with a thousand LlamaModels.
        body = await asyncio.to_thread(generate_latest, _Read(registry.collect()))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes(
        [
            web.get("/healthz", _answer(alive)),
            web.get("/readyz", _answer(ready)),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: int = runner.addresses[0][1]
        _log.info("serving /metrics, /healthz and /readyz on port %d", bound)
        yield bound
    finally:
        await runner.cleanup()


class _Read(Collector):
    """What was read already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


async def measure_loop_lag(gauge: Gauge, *, period_sec: float = 1.0) -> None:
    """Keeps the gauge at how late, in seconds, the event loop last woke a sleeper."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        await asyncio.sleep(period_sec)
        gauge.set(max(0.0, loop.time() - started - period_sec))


def _answer(checks: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        problems = {name: problem for name, check in checks.items() if (problem := check()) is not None}
        lines = [f"{name}: {problems.get(name, 'ok')}" for name in checks]
        return web.Response(text="\n".join([*lines, ""]), status=503 if problems else 200)

    return handler
