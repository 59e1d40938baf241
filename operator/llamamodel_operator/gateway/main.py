"""The gateway's process."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import uvloop
from prometheus_client import CollectorRegistry
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from llamamodel_operator import __version__
from llamamodel_operator.core.gateway.waits import WaitLimits
from llamamodel_operator.gateway.access import Access, MountedKeys
from llamamodel_operator.gateway.connections import ConnectionLimits
from llamamodel_operator.gateway.cors import Cors
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.forwarding import Forwarder
from llamamodel_operator.gateway.server import serve_gateway
from llamamodel_operator.gateway.settings import GatewaySettings
from llamamodel_operator.gateway.sight import Sight
from llamamodel_operator.gateway.upstream import UpstreamSession
from llamamodel_operator.shell.client import ClusterClient, ClusterConfigError
from llamamodel_operator.shell.command_line import read_settings
from llamamodel_operator.shell.health import Check, serve
from llamamodel_operator.shell.logs import configure_logging
from llamamodel_operator.shell.pod_keys import MountedPodKeys, no_pod_key

if TYPE_CHECKING:
    from llamamodel_operator.gateway.certificate import MountedCertificate

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `llamamodel-gateway`. Exits 0 when asked to stop, 2 on bad settings."""
    if sys.argv[1:] == ["--version"]:
        print(f"llamamodel-gateway {__version__}")  # noqa: T201
        return
    settings = read_settings(GatewaySettings)
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each request; some runtimes begin with 1024
    try:
        uvloop.run(_run(settings))
    except (ClusterConfigError, OSError) as error:
        _log.error("%s", error)
        sys.exit(2)


async def _run(settings: GatewaySettings) -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    bare = frozenset(settings.bare_namespaces)
    directory = Directory(
        namespaces=settings.watch_namespaces, bare_namespaces=bare or None, defaults=settings.model_defaults
    )
    keys = MountedKeys(settings.keys_dir) if settings.keys_dir else None
    pod_keys = MountedPodKeys(settings.pod_keys_dir) if settings.pod_keys_dir else None
    certificate = _certificate(settings.tls_dir) if settings.tls_dir else None
    if keys is None:
        _log.warning("API keys are off: whoever reaches this gateway may use every model that it serves")
    sight = Sight(registry=registry, directory=directory, access_log=settings.access_log)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            ClusterClient.connect(kubeconfig=settings.kubeconfig, context=settings.context)
        )
        session = await stack.enter_async_context(UpstreamSession())
        watching = asyncio.create_task(directory.run(client), name="directory")
        stack.callback(watching.cancel)
        alive: dict[str, Check] = {"watches": partial(_ended, watching)}
        ready: dict[str, Check] = {"directory": directory.problem, "running": sight.problem}
        for name, secret in (("keys", keys), ("certificate", certificate), ("pod-keys", pod_keys)):
            if secret is not None:
                secret.mounted.look()
                looking = asyncio.create_task(secret.mounted.run(), name=name)
                stack.callback(looking.cancel)
                alive[name] = partial(_ended, looking)
        # Keys of pods are not among these: they concern some models alone, and requests for those say what is wrong.
        ready |= {name: one.problem for name, one in (("keys", keys), ("certificate", certificate)) if one is not None}
        await stack.enter_async_context(
            serve(
                host=settings.host,
                port=settings.http_port,
                registry=registry,
                alive=alive,
                ready=ready,
            )
        )
        await stack.enter_async_context(
            serve_gateway(
                host=settings.host,
                port=settings.port,
                directory=directory,
                forwarder=Forwarder(
                    directory=directory,
                    session=session,
                    timeout_sec=settings.timeout_sec,
                    max_in_flight_per_pod=settings.max_in_flight_per_pod,
                    gateways=settings.gateways,
                    waits=WaitLimits(
                        longest_sec=settings.wait_sec,
                        per_model=settings.wait_per_model,
                        total=settings.wait_total,
                    ),
                    load_poll_sec=settings.load_poll_sec,
                    pod_key=pod_keys.of if pod_keys else no_pod_key,
                ),
                sight=sight,
                drain_sec=settings.drain_sec,
                body_limit_bytes=settings.body_limit_bytes,
                bodies_limit_bytes=settings.bodies_limit_bytes,
                access=Access(
                    keys=keys,
                    max_in_flight=settings.max_in_flight,
                    wrong_keys_per_minute=settings.wrong_keys_per_minute,
                ),
                limits=ConnectionLimits(
                    most=settings.max_connections,
                    idle_sec=settings.idle_timeout_sec,
                    write_sec=settings.write_timeout_sec,
                ),
                cors=Cors(settings.cors_origins),
                tls=certificate.tls if certificate else None,
            )
        )
        await stop.wait()
        sight.stop()
        await asyncio.sleep(settings.stop_delay_sec)


def _certificate(path: str) -> MountedCertificate:
    from llamamodel_operator.gateway.certificate import MountedCertificate  # it takes 9 MB, and most do without TLS

    return MountedCertificate(path)


def _ended(task: asyncio.Task[None]) -> str | None:
    """What never happens by itself: a bug, which a restart may hide for a while."""
    return "it has ended" if task.done() else None
