"""The gateway's process."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from llamamodel_operator import __version__
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.forwarding import Forwarder, new_session
from llamamodel_operator.gateway.server import serve_gateway
from llamamodel_operator.gateway.settings import GatewaySettings
from llamamodel_operator.gateway.sight import Sight
from llamamodel_operator.shell.client import ClusterClient, ClusterConfigError
from llamamodel_operator.shell.health import serve
from llamamodel_operator.shell.logs import configure_logging
from llamamodel_operator.shell.settings import read_settings

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `llamamodel-gateway`. Exits 0 when asked to stop, 2 on bad settings."""
    if sys.argv[1:] == ["--version"]:
        print(f"llamamodel-gateway {__version__}")  # noqa: T201
        return
    settings = read_settings(GatewaySettings)
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_run(settings))
    except (ClusterConfigError, OSError) as error:
        _log.error("%s", error)
        sys.exit(2)


async def _run(settings: GatewaySettings) -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    bare = frozenset(settings.bare_namespaces)
    directory = Directory(namespaces=settings.watch_namespaces, bare_namespaces=bare or None)
    sight = Sight(registry=registry, directory=directory, access_log=settings.access_log)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            ClusterClient.connect(kubeconfig=settings.kubeconfig, context=settings.context)
        )
        session = await stack.enter_async_context(new_session())
        watching = asyncio.create_task(directory.run(client), name="directory")
        stack.callback(watching.cancel)
        await stack.enter_async_context(
            serve(
                host=settings.host,
                port=settings.http_port,
                registry=registry,
                alive={"watches": lambda: "they have ended" if watching.done() else None},
                ready={"directory": directory.problem, "running": sight.problem},
            )
        )
        await stack.enter_async_context(
            serve_gateway(
                host=settings.host,
                port=settings.port,
                directory=directory,
                forwarder=Forwarder(directory=directory, session=session, timeout_sec=settings.timeout_sec),
                sight=sight,
                body_limit_bytes=settings.body_limit_bytes,
                drain_sec=settings.drain_sec,
            )
        )
        await stop.wait()
        sight.stop()
        await asyncio.sleep(settings.stop_delay_sec)
