"""The operator's process as a whole: leads or stands by, stops when asked, and says when it is not well."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llamamodel_operator.main import Operator
from llamamodel_operator.shell.client import DEPLOYMENTS, LEASES, MODELS, ApiError
from llamamodel_operator.shell.leader import LeaseLock, LeaseLostError
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.nodes import NodeWatch
from llamamodel_operator.shell.sandbox import TemplateSandbox
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.store import Key

from .builders import a_model
from .fake_cluster import FakeCluster

LEASE = Key("ops", "llamamodel-operator")
GEMMA = Key("demo", "gemma")


class Process(Operator):
    """An operator whose watches tell nothing, and that never calls kopf; what is there, it finds at its start."""

    def __init__(self, cluster: FakeCluster, **settings: Any) -> None:
        self.metrics = Metrics()
        super().__init__(
            settings=Settings(lease_namespace="ops", **settings),
            client=cluster,
            metrics=self.metrics,
            sandbox=TemplateSandbox(),
        )
        self._nodes = NodeWatch(client=None, on_change=lambda: None)
        self._lease._clock = lambda: asyncio.get_running_loop().time()

    async def _watch(self) -> None:
        await asyncio.Event().wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.run())
        await asyncio.sleep(1)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def problems(self) -> dict[str, str]:
        """What /healthz and /readyz complain of."""
        checks = {f"{path} {name}": check for path, all_checks in (("healthz", self.alive()), ("readyz", self.ready()))
                  for name, check in all_checks.items()}  # fmt: skip
        return {name: problem for name, check in checks.items() if (problem := check()) is not None}

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"llamamodel_operator_{name}", labels)


def holder(cluster: FakeCluster) -> str:
    return str(cluster.shows(LEASES, LEASE)["spec"]["holderIdentity"])


async def test_a_leader_takes_the_lease_and_does_what_there_is_to_do(cluster: FakeCluster) -> None:
    cluster.has(MODELS, a_model().raw())
    process = Process(cluster, identity="one")
    async with process.running():
        assert holder(cluster).startswith("one_")
        assert cluster.keys(DEPLOYMENTS) == {GEMMA}
        assert process.problems() == {}
        assert process.value("leader") == 1
        assert process.value("reconciles_total", result="ok") == 1


async def test_a_process_that_stands_by_is_well_and_writes_nothing(cluster: FakeCluster) -> None:
    cluster.has(MODELS, a_model().raw())
    first, second = Process(cluster), Process(cluster)
    async with first.running():
        cluster.forget_writes()
        async with second.running():
            await asyncio.sleep(60)
            assert second.problems() == {}
            assert second.value("leader") == 0
            assert {write.kind for write in cluster.writes} == {"Lease"}


async def test_the_lease_is_the_fence_of_every_write(cluster: FakeCluster) -> None:
    process = Process(cluster)
    async with process.running():
        assert cluster.fence == process._lease.check


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_a_leader_stops_and_frees_the_lease(cluster: FakeCluster, number: signal.Signals) -> None:
    process = Process(cluster)
    async with process.running() as task:
        os.kill(os.getpid(), number)
        await asyncio.sleep(1)
        assert task.done()
        assert task.exception() is None
        assert holder(cluster) == ""
        assert process.value("leader") == 0


async def test_asked_to_stop_a_process_that_stands_by_stops(cluster: FakeCluster) -> None:
    async with Process(cluster).running(), Process(cluster, identity="second").running() as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(1)
        assert task.done()


async def test_asked_to_stop_a_process_without_election_stops_although_the_cluster_cannot_be_read(
    cluster: FakeCluster,
) -> None:
    def down(_: str) -> None:
        raise OSError("refused")

    cluster.before_read = down
    async with Process(cluster, leader_election=False).running() as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
        assert task.done()


async def test_without_election_no_lease_is_taken(cluster: FakeCluster) -> None:
    cluster.has(MODELS, a_model().raw())
    process = Process(cluster, leader_election=False)
    async with process.running():
        assert cluster.keys(LEASES) == set()
        assert cluster.keys(DEPLOYMENTS) == {GEMMA}
        assert process.problems() == {}


async def test_a_lost_lease_ends_the_process(cluster: FakeCluster) -> None:
    async with Process(cluster).running() as task:
        cluster.loses(LEASES, LEASE)
        await asyncio.sleep(5)
        with pytest.raises(LeaseLostError):
            await task
    assert cluster.keys(LEASES) == set()


async def test_while_the_first_reading_is_not_complete_the_leader_is_not_ready_and_no_one_restarts_it(
    cluster: FakeCluster,
) -> None:
    def down(kind: str) -> None:
        if kind == "Pod":
            raise OSError("refused")

    cluster.before_read = down
    cluster.has(MODELS, a_model().raw())
    process = Process(cluster)
    async with process.running():
        assert process.problems() == {"readyz cache": "the first reading of the cluster is not complete"}
        assert {write.kind for write in cluster.writes} == {"Lease"}


async def test_a_lease_that_cannot_be_read_is_a_reason_not_to_be_ready(cluster: FakeCluster) -> None:
    def forbidden(_: str) -> None:
        raise ApiError(status=403, reason="Forbidden", message="may not get leases")

    cluster.before_read = forbidden
    process = Process(cluster)
    async with process.running():
        assert process.problems() == {
            "readyz lease": "the lease ops/llamamodel-operator cannot be had: may not get leases"
        }


async def test_a_deaf_watch_is_a_reason_to_be_restarted(cluster: FakeCluster) -> None:
    process = Process(cluster)
    async with process.running():
        cluster.has(MODELS, a_model().raw())
        await asyncio.sleep(320)
        assert process.problems() == {"healthz watches": "no news from the watches of llamamodels"}
        assert cluster.keys(DEPLOYMENTS) == {GEMMA}  # late, but not lost


async def test_no_comparison_for_long_is_a_reason_to_be_restarted(cluster: FakeCluster) -> None:
    process = Process(cluster, resync_interval_sec=100)
    async with process.running():

        def down(kind: str) -> None:
            if kind != "Lease":
                raise OSError("refused")

        cluster.before_read = down
        await asyncio.sleep(340)
        assert process.problems() == {}
        await asyncio.sleep(40)
        assert list(process.problems()) == ["healthz watches"]


async def test_a_stalled_worker_is_a_reason_to_be_restarted(cluster: FakeCluster) -> None:
    process = Process(cluster, workers=1)

    async def hangs(_: Key) -> None:
        while True:  # takes no notice of its cancellation, as a blocked call would
            try:
                await asyncio.sleep(10**6)
            except asyncio.CancelledError:
                if released:
                    raise

    released: list[bool] = []
    process._queue._work = hangs
    cluster.has(MODELS, a_model().raw())
    async with process.running():
        await asyncio.sleep(200)
        assert process.problems() == {}
        await asyncio.sleep(60)
        assert list(process.problems()) == ["healthz workers", "readyz workers"]
        released.append(True)


async def test_a_failed_pass_is_logged_with_the_model_counted_and_repeated(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.has(MODELS, a_model().raw())
    cluster.refuses("Deployment", ApiError(status=503, reason="", message="overloaded"))
    process = Process(cluster)
    async with process.running():
        await asyncio.sleep(5)
        cluster.before_write = lambda _: None
        await asyncio.sleep(60)
        assert cluster.keys(DEPLOYMENTS) == {GEMMA}
    assert (process.value("reconciles_total", result="error") or 0) >= 2
    (first, *_) = [record for record in caplog.records if "the pass failed" in record.message]
    assert first.message.endswith("overloaded")
    assert first.__dict__["model"] == "demo/gemma"
    assert first.exc_info is None


async def test_a_refusal_is_counted_apart(cluster: FakeCluster) -> None:
    cluster.has(MODELS, a_model().raw())
    cluster.refuses("Deployment", ApiError(status=422, reason="Invalid", message="no"))
    process = Process(cluster)
    async with process.running():
        assert (process.value("reconciles_total", result="refused") or 0) >= 1


async def test_a_fault_of_our_own_is_logged_with_its_stack_and_harms_no_other_model(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.has(MODELS, a_model().raw())
    cluster.has(MODELS, a_model().named("b").raw())

    def fault(write: Any) -> None:
        if write.name == "gemma":
            raise KeyError("a fault")

    cluster.before_write = fault
    async with Process(cluster).running():
        assert Key("demo", "b") in cluster.keys(DEPLOYMENTS)
    assert any(record.exc_info for record in caplog.records)


def test_two_processes_of_one_name_have_two_identities(cluster: FakeCluster) -> None:
    def identity(lock: LeaseLock) -> str:
        return lock._identity

    first, second = Process(cluster, identity="pod"), Process(cluster, identity="pod")
    assert identity(first._lease) != identity(second._lease)
