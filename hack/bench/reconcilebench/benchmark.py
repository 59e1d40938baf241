"""The run: warm up, then rounds of both halves in alternating order, then the idle time."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from llamamodel_operator.shell.settings import Settings

from .api import Api
from .audit import LEASE, AuditLog, Ledger
from .cluster import Cluster
from .endstate import EndState, compare, read_end_state
from .errors import BenchError
from .halves import Stage, create_all, make_all, measure
from .objects import CLAIM, MANAGER, Bodies, Paths, make_bodies
from .operator_process import OperatorProcess, running_operator
from .procs import CpuMeter, memory, prioritise
from .progress import Progress
from .results import Half, Idle, OperatorHalf, Result, Round

__all__ = ["Benchmark", "Options"]

_CRD = Path(__file__).resolve().parents[3] / "crds" / "llamamodels.yaml"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_AGENT = "llamamodel-bench"
_WARM_UP = 100
_METRIC = {
    ("deployments", "patch"): ("Deployment", "apply"),
    ("services", "patch"): ("Service", "apply"),
    ("llamamodels/status", "patch"): ("LlamaModel", "apply-status"),
    ("events", "create"): ("Event", "create"),
}
"""How the operator's metrics name what the audit log calls (what, verb)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    models: int
    rounds: int
    idle_sec: float
    concurrency: int
    nice: int

    @property
    def resync_sec(self) -> float:
        """The operator's resync interval: so short that the idle time holds two comparisons, default 300 s."""
        return max(10.0, 0.4 * self.idle_sec) if self.idle_sec else 300.0


class Benchmark:
    """One run on one cluster. Operator logs go to `workdir`."""

    def __init__(self, *, options: Options, cluster: Cluster, api: Api, workdir: Path, progress: Progress) -> None:
        self._options = options
        self._cluster = cluster
        self._api = api
        self._workdir = workdir
        self._progress = progress
        self._audit = AuditLog(cluster.audit_log)
        self._configuration = Settings.model_construct().configuration  # as the operator has them without environment
        self._idle: Idle | None = None

    async def run(self) -> Result:
        """Raises BenchError."""
        options, say = self._options, self._progress.say
        try:
            for pid in (*self._cluster.pids.values(), os.getpid()):
                prioritise(pid, nice=options.nice)
            await self._install()
            await self._warm_up()
            rounds = []
            for number in range(1, options.rounds + 1):
                rounds.append(await self._round(number))
                say(
                    f"round {number}: floor {rounds[-1].floor.seconds:.2f} s, operator "
                    f"{rounds[-1].operator.seconds:.2f} s, ratio {rounds[-1].ratio:.2f}"
                )
        finally:
            self._audit.close()
        return Result(
            models=options.models,
            concurrency=options.concurrency,
            nice=options.nice,
            rounds=rounds,
            idle=self._idle,
        )

    async def _install(self) -> None:
        crd = yaml.safe_load(_CRD.read_text())
        await self._api.post(_CRDS, orjson.dumps(crd))
        async with asyncio.timeout(30):
            while True:
                found = await self._api.get(f"{_CRDS}/{crd['metadata']['name']}")
                conditions = {c["type"]: c["status"] for c in (found.get("status") or {}).get("conditions") or []}
                if conditions.get("Established") == "True":
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # until the API server serves the new kind, and its own start is over

    async def _warm_up(self) -> None:
        """So that the first half does not pay for what the API server does once."""
        self._progress.say("warming the API server up")
        stage = await self._stage("bench-warm-up", models=min(_WARM_UP, self._options.models))
        await make_all(stage)
        await self._empty(stage.paths)

    async def _round(self, number: int) -> Round:
        last = number == self._options.rounds
        if number % 2:
            floor, floor_state = await self._floor_half(number)
            operator, our_state = await self._operator_half(number, then_idle=last)
        else:
            operator, our_state = await self._operator_half(number, then_idle=last)
            floor, floor_state = await self._floor_half(number)
        compare(floor=floor_state, ours=our_state)
        return Round(first="floor" if number % 2 else "operator", floor=floor, operator=operator)

    async def _floor_half(self, number: int) -> tuple[Half, EndState]:
        stage = await self._stage(f"bench-{number}-floor", models=self._options.models)
        half, _ = await measure(stage, make_all, makers=_AGENT, pids=self._cluster.pids, label=f"round {number}, floor")
        state = await read_end_state(self._api, namespace=stage.namespace, models=self._options.models)
        await self._empty(stage.paths)
        return half, state

    async def _operator_half(self, number: int, *, then_idle: bool) -> tuple[OperatorHalf, EndState]:
        label = f"round {number}, operator"
        stage = await self._stage(f"bench-{number}-operator", models=self._options.models)
        log = self._workdir / f"operator-{number}.log"
        async with running_operator(
            kubeconfig=self._cluster.kubeconfig, log=log, resync_sec=self._options.resync_sec
        ) as operator:
            pids = {**self._cluster.pids, "operator": operator.pid}
            prioritise(operator.pid, nice=self._options.nice)
            half, ledger = await measure(stage, create_all, makers=f"{MANAGER}/", pids=pids, label=label)
            at_end = memory(operator.pid)
            await _cross_check(operator, ledger)
            passes = await operator.passes()
            if then_idle and self._options.idle_sec:
                self._idle = await self._stay_idle(operator)
            peak = memory(operator.pid).peak
        state = await read_end_state(self._api, namespace=stage.namespace, models=self._options.models)
        await self._empty(stage.paths)
        measured = OperatorHalf(
            seconds=half.seconds,
            creating_seconds=half.creating_seconds,
            deployment_p50_sec=half.deployment_p50_sec,
            deployment_p99_sec=half.deployment_p99_sec,
            cpu_sec=half.cpu_sec,
            load_before=half.load_before,
            writes=dict(ledger.writes),
            failed_writes=ledger.failed,
            passes=passes,
            peak_rss_bytes=peak,
            end_rss_bytes=at_end.now,
        )
        return measured, state

    async def _stay_idle(self, operator: OperatorProcess) -> Idle:
        """Looks on while there is nothing to do."""
        seconds, passes = self._options.idle_sec, await operator.passes()
        cpu = CpuMeter({"operator": operator.pid})
        self._audit.skip()
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < seconds:
            self._progress.tick(f"idle with {self._options.models} models: {elapsed:.0f} of {seconds:.0f} s")
            await asyncio.sleep(min(1.0, seconds - elapsed))
        ours = [write for write in self._audit.read() if write.agent.startswith(f"{MANAGER}/")]
        after = memory(operator.pid)
        return Idle(
            seconds=seconds,
            writes=dict(Counter((write.what, write.verb) for write in ours if write.what != LEASE)),
            lease_writes=sum(write.what == LEASE for write in ours),
            passes=await operator.passes() - passes,
            operator_cpu_sec=cpu.read()["operator"],
            peak_rss_bytes=after.peak,
            end_rss_bytes=after.now,
        )

    async def _stage(self, namespace: str, *, models: int) -> Stage:
        """A fresh namespace with a bound claim, and all bodies made."""
        bodies: Sequence[Bodies] = make_bodies(namespace=namespace, count=models, configuration=self._configuration)
        await self._api.post("/api/v1/namespaces", orjson.dumps({"metadata": {"name": namespace}}))
        claims = Paths(namespace=namespace).claims
        claim = {
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        await self._api.post(claims, orjson.dumps(claim))
        await self._api.merge(f"{claims}/{CLAIM}/status", {"status": {"phase": "Bound"}})
        gc.collect()
        return Stage(
            api=self._api,
            namespace=namespace,
            bodies=bodies,
            audit=self._audit,
            concurrency=self._options.concurrency,
            progress=self._progress,
        )

    async def _empty(self, paths: Paths) -> None:
        """Nothing is left for the next half; there is no garbage collector in this cluster."""
        for collection in (paths.models, paths.deployments, paths.services, paths.claims):
            await self._api.delete_all(collection)
        for collection in (paths.models, paths.deployments, paths.services):
            left = (await self._api.get(collection, limit="1"))["items"]
            if left:
                raise BenchError(f"{collection} is not empty although everything in it was deleted")


async def _cross_check(operator: OperatorProcess, ledger: Ledger) -> None:
    """The operator's own count of its writes must be the API server's."""
    counted = await operator.writes()
    recorded = {_METRIC.get(key, key): number for key, number in ledger.writes.items()}
    if counted != recorded:
        raise BenchError(f"the operator's metrics count the writes {counted}, the audit log has {recorded}")
