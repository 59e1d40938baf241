"""The operator's process: leads or stands by, keeps a cache by watching, and works through the queue."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import aiohttp
import kopf

from llamamodel_operator import __version__
from llamamodel_operator.api.findings import Finding
from llamamodel_operator.api.labels import INSPECT_ANNOTATION
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.core.review import Know, nobody_looks, review_manifest
from llamamodel_operator.core.text.template import TemplateReport
from llamamodel_operator.handlers import make_registry, make_settings
from llamamodel_operator.shell.client import MODELS, ApiError, ClusterClient, ClusterConfigError
from llamamodel_operator.shell.command_line import read_settings
from llamamodel_operator.shell.gather import Gatherer
from llamamodel_operator.shell.health import Check, measure_loop_lag, serve
from llamamodel_operator.shell.inspecting import Inspector
from llamamodel_operator.shell.leader import LeaseLock, LeaseLostError
from llamamodel_operator.shell.log_reader import read_load_log
from llamamodel_operator.shell.logs import configure_logging
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.model_metrics import ModelMetrics
from llamamodel_operator.shell.nodes import NodeWatch
from llamamodel_operator.shell.pod_keys import MountedPodKeys, no_pod_key
from llamamodel_operator.shell.post_mortem import PostMortem
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.queue import KeyedQueue
from llamamodel_operator.shell.reconciler import Reconciler, RefusedError
from llamamodel_operator.shell.resync import Resync
from llamamodel_operator.shell.sandbox import SandboxUnavailableError, TemplateSandbox
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.store import CACHED, Key, Store

__all__ = ["main"]

_log = logging.getLogger(__name__)

_PASS_TIMEOUT_SEC = 120.0
_STOP_SEC = 12.0
"""How long parts may take to stop; half as much again and the process ends whatever they do."""
_DRAIN_SEC = 5.0
"""How long running passes may take to end before the lease is given back."""
_EXPECTED = (RefusedError, LeaseLostError, ApiError, SandboxUnavailableError, aiohttp.ClientError, TimeoutError)
"""What a pass may fail with without a fault of ours."""
_KOPFS_WATCHER = "watcher for "
"""How the names of kopf's tasks begin, one per kind and namespace."""
_STALLED_SEC = 300.0
_NODES_SEC = 5.0
_TEXTS_SEC = 30.0
"""Between looks at ConfigMaps that are referred to and not watched."""


def main() -> None:
    """Entry point of `llamamodel-operator`. Exits 0 when asked to stop, 1 when the lease is lost, 2 on bad settings."""
    if sys.argv[1:] == ["--version"]:
        print(f"llamamodel-operator {__version__}")  # noqa: T201
        return
    settings = read_settings(Settings)
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_run(settings))
    except LeaseLostError as error:
        _log.error("not leading any more, exiting so as to stand by anew: %s", error)
        sys.exit(1)
    except WatchFailedError as error:
        _log.error("%s; exiting so as to start anew", error)
        sys.exit(1)
    except (ClusterConfigError, OSError) as error:
        _log.error("%s", error)
        sys.exit(2)
    except Exception:
        _log.critical("this is a bug of the operator, please report it", exc_info=True)
        sys.exit(1)


async def _run(settings: Settings) -> None:
    # What was imported stays: looking through it again and again for garbage costs a tenth of all CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    metrics = Metrics()
    alive: dict[str, Check] = {}
    ready: dict[str, Check] = {}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            serve(
                host=settings.http_host,
                port=settings.http_port,
                registry=metrics.registry,
                alive=alive,
                ready=ready,
            )
        )
        client = await stack.enter_async_context(
            ClusterClient.connect(
                kubeconfig=settings.kubeconfig, context=settings.context, observe_write=metrics.observe_write
            )
        )
        operator = Operator(
            settings=settings, client=client, metrics=metrics, sandbox=stack.enter_context(TemplateSandbox())
        )
        alive.update(operator.alive())
        ready.update(operator.ready())
        if settings.webhook != "off":
            # Not above: what makes certificates takes 20 MB of memory.
            from llamamodel_operator.webhook.running import running_webhook

            ready["webhook"] = await stack.enter_async_context(
                running_webhook(
                    settings=settings,
                    client=client,
                    metrics=metrics,
                    review=review_of(settings, stack.enter_context(TemplateSandbox()), know=operator.known),
                    leading=operator.leads,
                )
            )
        lag = asyncio.create_task(measure_loop_lag(metrics.loop_lag_seconds), name="loop-lag")
        try:
            await operator.run()
        finally:
            lag.cancel()
            _end_for_certain()


def review_of(
    settings: Settings, sandbox: TemplateSandbox, *, know: Know | None = None
) -> Callable[[Mapping[str, Any]], Sequence[Finding]]:
    """What the webhook says about a LlamaModel. It asks nobody: what lies in ConfigMaps, the operator checks. Of files
    and nodes it says what the leader knows already; other replicas know nothing."""
    configuration = settings.configuration

    def examine(text: str) -> TemplateReport:
        try:
            return sandbox.examine(text)
        except SandboxUnavailableError as error:
            _log.warning("a review says nothing of a chat template: %s", error)
            return TemplateReport()

    def review(raw: Mapping[str, Any]) -> Sequence[Finding]:
        return review_manifest(
            raw, configuration=configuration, look_up=nobody_looks, examine=examine, know=know
        ).findings

    return review


class WatchFailedError(Exception):
    """Kopf gave up a watch, for example since the CustomResourceDefinition was deleted, or a right was taken away."""


class Operator:
    """Everything of one process, wired."""

    def __init__(
        self, *, settings: Settings, client: ClusterClient, metrics: Metrics, sandbox: TemplateSandbox
    ) -> None:
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._store = Store()
        self._queue: KeyedQueue[Key] = KeyedQueue(
            work=self._pass, on_error=self._failed, workers=settings.workers, pass_timeout=_PASS_TIMEOUT_SEC
        )
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        spans_the_cluster = not settings.watch_namespaces
        self._nodes = NodeWatch(client=client if spans_the_cluster else None, on_change=self._nodes_changed)
        inspects = settings.inspection and bool(settings.operator_image)
        self._gatherer = Gatherer(
            client=client,
            store=self._store,
            examine=sandbox.examine_async,
            nodes=self._nodes.nodes,
            operator_image=settings.operator_image if inspects else "",
            bare_namespaces=settings.bare_namespaces,
        )
        self._inspector = Inspector(
            client=client,
            store=self._store,
            image=settings.operator_image,
            timeout_sec=settings.inspection_timeout_sec,
            now=_now,
            later=self._later,
        )
        self._pod_keys = (
            MountedPodKeys(settings.pod_keys_dir, on_change=lambda: self._prober.keys_changed())
            if settings.pod_keys_dir
            else None
        )
        self._prober = Prober(
            again=self._queue.add,
            read_log=functools.partial(read_load_log, client),
            pod_key=self._pod_keys.of if self._pod_keys else no_pod_key,
        )
        self._reconciler = Reconciler(
            client=client,
            store=self._store,
            metrics=metrics,
            configuration=settings.configuration,
            gatherer=self._gatherer,
            prober=self._prober,
            now=_now,
            again=self._queue.add,
            inspector=self._inspector if inspects else None,
            post_mortem=PostMortem(client=client, now=_now, later=self._later),
        )
        self._resync = Resync(
            client=client,
            store=self._store,
            metrics=metrics,
            namespaces=settings.watch_namespaces,
            interval_sec=settings.resync_interval_sec,
            enqueue=self._queue.add,
        )
        self._lease = LeaseLock(
            client=client.unfenced(),
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=f"{settings.identity}_{secrets.token_hex(4)}",
            clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        )
        self._working = False
        self._stop = asyncio.Event()
        metrics.watch_queue(
            depth=lambda: self._queue.depth,
            oldest_wait=lambda: self._queue.oldest_wait,
            longest_pass=lambda: self._queue.longest_pass,
        )
        metrics.watch_phases(self._reconciler.models_by_phase)
        metrics.registry.register(ModelMetrics(self._store))

    async def run(self) -> None:
        """Leads when it can, and works until it is asked to stop.

        Raises:
            LeaseLostError: somebody else leads now, or may.
        """
        self._take_signals()
        if not self._settings.leader_election:
            await _first(self._work(), self._asked_to_stop())
            return
        await _first(self._lease.acquire(), self._stop.wait())
        if self._stop.is_set():
            return
        self._client.fence = self._lease.check
        self._metrics.lease_transitions.inc()
        try:
            await _first(self._lease.keep(), self._work(), self._asked_to_stop())
        finally:
            await self._lease.release()
            self._metrics.leader.set(0)

    def _take_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _asked_to_stop(self) -> None:
        """Until then; passes that run may end, while the lease is still kept."""
        await self._stop.wait()
        await self._queue.drain(within=_DRAIN_SEC)

    async def _work(self) -> None:
        """Until a part fails."""
        self._metrics.leader.set(1)
        await self._resync.fill()
        self._working = True
        try:
            await _first(
                self._work_through(),
                self._resync.run(),
                self._watch(),
                self._watch_the_watches(),
                self._look_at_texts(),
                self._nodes.run(),
                *((self._pod_keys.mounted.run(),) if self._pod_keys else ()),
            )
        finally:
            await self._prober.close()

    async def _watch(self) -> None:
        namespaces = self._settings.watch_namespaces
        registry = make_registry(client=self._client, store=self._store, metrics=self._metrics, enqueue=self._queue.add)
        try:
            await kopf.operator(
                registry=registry,
                settings=make_settings(),
                # Else kopf asks for the name of the user, which a bare UID has not.
                identity=self._settings.identity,  # type: ignore[arg-type]
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
            )
        except Exception as error:
            raise WatchFailedError(f"a watch failed for good: {str(error) or type(error).__name__}") from error

    async def _work_through(self) -> None:
        """The queue, once the nodes are known: else the first passes would say of all models that they are not."""
        await self._nodes.ready(within=_NODES_SEC)
        await self._queue.run()

    def _nodes_changed(self) -> None:
        for key in self._store.keys(MODELS):
            self._queue.add(key)  # the GPUs may come from the defaults of the operator

    async def _look_at_texts(self) -> None:
        """The watch of ConfigMaps tells of those with our label alone; others are looked at now and then."""
        while True:
            await asyncio.sleep(_TEXTS_SEC)
            for key in tuple(self._gatherer.unwatched):
                self._queue.add(key)

    async def _watch_the_watches(self) -> None:
        """Kopf may hang when one of its watches has failed for good: it stops the others and waits for ever."""
        wanted = len(CACHED) * max(1, len(self._settings.watch_namespaces))
        all_were_there = False
        while True:
            await asyncio.sleep(1)
            alive = sum(task.get_name().startswith(_KOPFS_WATCHER) for task in asyncio.all_tasks())
            if alive < wanted and all_were_there:
                raise WatchFailedError("a watch failed for good, see above")
            if alive >= wanted and not all_were_there:
                all_were_there = True
                self._take_signals()  # back from kopf, which took them when it started

    def _later(self, key: Key, seconds: float) -> None:
        """A pass after a time. One that was asked for before and is due earlier does as well: it will ask again."""
        if before := self._timers.get(key):
            if before.when() <= asyncio.get_running_loop().time() + seconds:
                return
            before.cancel()

        def due() -> None:
            self._timers.pop(key, None)
            self._queue.add(key)

        self._timers[key] = asyncio.get_running_loop().call_later(seconds, due)

    async def _pass(self, key: Key) -> None:
        with self._metrics.reconcile_seconds.time():
            await self._reconciler.reconcile(key)
        self._metrics.reconciles.labels(result="ok").inc()

    def _failed(self, key: Key, error: Exception, delay: float) -> None:
        refused = isinstance(error, RefusedError)
        self._metrics.reconciles.labels(result="refused" if refused else "error").inc()
        expected = isinstance(
            error, (RefusedError, LeaseLostError, ApiError, SandboxUnavailableError, aiohttp.ClientError, TimeoutError)
        )
        _log.warning(
            "the pass failed, again in %.1f s: %s",
            delay,
            str(error) or type(error).__name__,
            extra={"model": str(key)},
            exc_info=None if expected else error,
        )

    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self._lease.leading or not self._settings.leader_election

    def known(self, model: LlamaModel) -> tuple[Inspection | None, tuple[NodeGpus, ...] | None]:
        """What this process knows already of the model's files, and of the nodes; for reviews, in their thread."""
        asked = model.annotations.get(INSPECT_ANNOTATION, "")
        return self._inspector.known(model, asked=asked), self._nodes.nodes()

    def alive(self) -> dict[str, Check]:
        """What /healthz asks: a process that fails one of these is better started anew."""
        return {"watches": self._check_watches, "workers": self._check_workers}

    def ready(self) -> dict[str, Check]:
        """What /readyz asks. Standing by is being ready, as long as the lease can be read."""
        return {"lease": lambda: self._lease.problem, "cache": self._check_cache, "workers": self._check_workers}

    def _check_cache(self) -> str | None:
        return "the first reading of the cluster is not complete" if self.leads() and not self._working else None

    def _check_watches(self) -> str | None:
        if not self._working:
            return None
        if self._resync.deaf:
            return f"no news from the watches of {', '.join(sorted(self._resync.deaf))}"
        since = asyncio.get_running_loop().time() - (self._resync.last_success or 0.0)
        longest = 3 * self._settings.resync_interval_sec + 60
        return f"no comparison with the API server for {since:.0f} s" if since > longest else None

    def _check_workers(self) -> str | None:
        if (seconds := self._queue.longest_pass) > 2 * _PASS_TIMEOUT_SEC:
            return f"a pass takes {seconds:.0f} s already"
        if (seconds := self._queue.idle_despite_work) > _STALLED_SEC:
            return f"LlamaModels wait, and no pass has ended for {seconds:.0f} s"
        return None


def _now() -> datetime:
    return datetime.now(UTC)


def _end_for_certain() -> None:
    """Ends the process soon, even if a task cannot be cancelled: a process that only looks alive helps nobody."""
    timer = threading.Timer(1.5 * _STOP_SEC, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


async def _first(*awaitables: Awaitable[object]) -> None:
    """Runs all until one ends, then stops the others. Raises what that one raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_SEC)
    for task in done:
        task.result()


if __name__ == "__main__":
    main()
