"""The two halves of a round: plain writes without an operator, and the operator at work."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from .api import Api
from .audit import AuditLog, Ledger
from .errors import BenchError
from .objects import MANAGER, UID_PLACEHOLDER, Bodies, Paths
from .procs import CpuMeter
from .progress import Progress
from .results import Half

__all__ = ["Stage", "create_all", "make_all", "measure", "quantile"]

_LOOK_SEC = 0.1
"""Pause between two looks at the audit log. Times come from its entries, not from when they are seen."""
_SETTLE_SEC = 3.0
"""How long is waited for writes that nobody needs, after the last needed one."""

_UID_KEY = b'"uid":"'
_UID_LENGTH = 36


class Stage:
    """What a half needs: a client, a namespace of its own, the audit log, and a time limit."""

    def __init__(
        self,
        *,
        api: Api,
        namespace: str,
        bodies: Sequence[Bodies],
        audit: AuditLog,
        concurrency: int,
        progress: Progress,
    ) -> None:
        self.api = api
        self.paths = Paths(namespace=namespace)
        self.namespace = namespace
        self.bodies = bodies
        self.audit = audit
        self.concurrency = concurrency
        self.progress = progress
        self.limit_sec = 60 + 0.2 * len(bodies)


async def make_all(stage: Stage) -> None:
    """The floor: creates each model, then applies its Deployment, its Service and its status."""
    api, paths = stage.api, stage.paths

    async def make(bodies: Bodies) -> None:
        uid = _uid(await api.post(paths.create_models, bodies.model))
        deployment, service, status = (
            body.replace(UID_PLACEHOLDER, uid) for body in (bodies.deployment, bodies.service, bodies.status)
        )
        await api.apply(f"{paths.deployments}/{bodies.name}", deployment, manager=MANAGER)
        await api.apply(f"{paths.services}/{bodies.name}", service, manager=MANAGER)
        await api.apply(f"{paths.models}/{bodies.name}/status", status, manager=MANAGER)

    await _at_once(make, stage.bodies, concurrency=stage.concurrency)


async def create_all(stage: Stage) -> None:
    """Creates the models and leaves the rest to the operator."""

    async def create(bodies: Bodies) -> None:
        await stage.api.post(stage.paths.create_models, bodies.model)

    await _at_once(create, stage.bodies, concurrency=stage.concurrency)


async def measure(
    stage: Stage,
    work: Callable[[Stage], Awaitable[None]],
    *,
    makers: str,
    pids: Mapping[str, int],
    label: str,
) -> tuple[Half, Ledger]:
    """Does the work and waits until everything is written and nothing more comes.

    Args:
        makers: how the user agent of those begins who make the children.
        pids: processes whose CPU is measured; the benchmark's own is added.

    Raises:
        BenchError: it is not complete within the time limit.
    """
    models = len(stage.bodies)
    ledger = Ledger(namespace=stage.namespace, makers=makers, models=models)
    load_before = os.getloadavg()[0]
    stage.audit.skip()
    cpu = CpuMeter({**pids, "benchmark": os.getpid()})
    deadline = time.monotonic() + stage.limit_sec
    working = asyncio.ensure_future(work(stage))
    try:
        while not ledger.complete:
            await asyncio.sleep(_LOOK_SEC)
            for write in stage.audit.read():
                ledger.note(write)
            if working.done():
                working.result()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{label}: {ledger.made} of {3 * models} objects and statuses after {stage.limit_sec:.0f} s"
                )
            stage.progress.tick(f"{label}: {ledger.made} of {3 * models} written")
        used = cpu.read()
        await working
    finally:
        working.cancel()
    await asyncio.sleep(_SETTLE_SEC)
    for write in stage.audit.read():
        ledger.note(write)
    latencies = ledger.deployment_latencies
    half = Half(
        seconds=ledger.seconds,
        creating_seconds=ledger.creating_seconds,
        deployment_p50_sec=quantile(latencies, 0.50),
        deployment_p99_sec=quantile(latencies, 0.99),
        cpu_sec=used,
        load_before=load_before,
    )
    return half, ledger


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the sorted values does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _at_once(work: Callable[[Bodies], Awaitable[None]], bodies: Iterable[Bodies], *, concurrency: int) -> None:
    waiting = iter(bodies)

    async def worker() -> None:
        for each in waiting:
            await work(each)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except* BenchError as errors:
        raise errors.exceptions[0] from None


def _uid(answer: bytes) -> bytes:
    """The first UID of the answer is that of the new object: it has no owner."""
    at = answer.index(_UID_KEY) + len(_UID_KEY)
    return answer[at : at + _UID_LENGTH]
