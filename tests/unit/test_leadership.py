"""Leadership by a lease: never do two write, and the next one leads soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from llamamodel_operator.shell.client import LEASES, ApiError
from llamamodel_operator.shell.leader import (
    LEASE_DURATION_SEC,
    RENEW_DEADLINE_SEC,
    RETRY_PERIOD_SEC,
    LeaseLock,
    LeaseLostError,
)
from llamamodel_operator.shell.store import Key

from .fake_cluster import FakeCluster, Write

LEASE = Key("ops", "llamamodel-operator")


class Clock:
    """The event loop's time, and what passed while the process was frozen."""

    def __init__(self) -> None:
        self.frozen_for = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.frozen_for


def a_lock(cluster: FakeCluster, identity: str = "one", clock: Callable[[], float] | None = None) -> LeaseLock:
    return LeaseLock(
        client=cluster, namespace=LEASE.namespace, name=LEASE.name, identity=identity, clock=clock or Clock()
    )


def a_lease(holder: str, *, duration: int = 12, transitions: int = 3) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": LEASE.namespace, "name": LEASE.name},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": transitions},
    }


def holder(cluster: FakeCluster) -> str:
    return str(cluster.shows(LEASES, LEASE)["spec"]["holderIdentity"])


def may_write(lock: LeaseLock) -> bool:
    try:
        lock.check()
    except LeaseLostError:
        assert not lock.leading
        return False
    assert lock.leading
    return True


async def elapsed(waiting: asyncio.Task[None]) -> float:
    await waiting
    return asyncio.get_running_loop().time()


def test_others_have_to_wait_longer_than_the_holder_writes() -> None:
    assert RENEW_DEADLINE_SEC + RETRY_PERIOD_SEC < LEASE_DURATION_SEC
    assert RETRY_PERIOD_SEC * 2 < RENEW_DEADLINE_SEC


async def test_before_it_leads_nobody_writes(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    with pytest.raises(LeaseLostError, match="the lease ops/llamamodel-operator was not renewed in time"):
        lock.check()
    assert not lock.leading


async def test_a_lease_that_is_not_there_is_made(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    assert may_write(lock)
    spec = cluster.shows(LEASES, LEASE)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 12, 0)
    assert spec["acquireTime"] == spec["renewTime"]
    assert cluster.writes == [Write("create", "Lease", LEASE.name)]


async def test_a_lease_that_was_released_is_taken_at_once(cluster: FakeCluster) -> None:
    cluster.has(LEASES, a_lease(""))
    await a_lock(cluster).acquire()
    assert asyncio.get_running_loop().time() == 0
    assert holder(cluster) == "one"
    assert cluster.shows(LEASES, LEASE)["spec"]["leaseTransitions"] == 4


async def test_a_lease_that_is_held_is_left_alone(cluster: FakeCluster) -> None:
    other, lock = a_lock(cluster, "other"), a_lock(cluster)
    await other.acquire()
    keeping, waiting = asyncio.create_task(other.keep()), asyncio.create_task(lock.acquire())
    await asyncio.sleep(600)
    assert not waiting.done()
    assert holder(cluster) == "other"
    assert may_write(other)
    assert not may_write(lock)
    for task in (keeping, waiting):
        task.cancel()
    await asyncio.gather(keeping, waiting, return_exceptions=True)


async def test_a_lease_whose_holder_died_is_taken_when_its_time_is_up_by_the_watchers_own_clock(
    cluster: FakeCluster,
) -> None:
    lease = a_lease("dead")
    lease["spec"]["renewTime"] = "2099-01-01T00:00:00.000000Z"  # the dead one's clock was wrong
    cluster.has(LEASES, lease)
    await a_lock(cluster).acquire()
    assert LEASE_DURATION_SEC <= asyncio.get_running_loop().time() <= LEASE_DURATION_SEC + RETRY_PERIOD_SEC
    assert holder(cluster) == "one"


async def test_a_lease_that_looks_old_gets_its_full_time_from_when_it_was_first_seen(cluster: FakeCluster) -> None:
    lease = a_lease("other")
    lease["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
    cluster.has(LEASES, lease)
    waiting = asyncio.create_task(a_lock(cluster).acquire())
    await asyncio.sleep(LEASE_DURATION_SEC - 1)
    assert not waiting.done()
    await waiting


async def test_every_renewal_that_is_seen_starts_the_wait_anew(cluster: FakeCluster) -> None:
    cluster.has(LEASES, a_lease("other"))
    waiting = asyncio.create_task(a_lock(cluster).acquire())
    for _ in range(5):
        await asyncio.sleep(LEASE_DURATION_SEC - 3)
        assert not waiting.done()
        cluster.has(LEASES, cluster.shows(LEASES, LEASE))
    assert await elapsed(waiting) >= 5 * (LEASE_DURATION_SEC - 3) + LEASE_DURATION_SEC - RETRY_PERIOD_SEC


async def test_the_duration_that_the_holder_wrote_counts(cluster: FakeCluster) -> None:
    cluster.has(LEASES, a_lease("other", duration=60))
    await a_lock(cluster).acquire()
    assert asyncio.get_running_loop().time() >= 60


async def test_who_loses_the_race_for_a_free_lease_stands_by(cluster: FakeCluster) -> None:
    cluster.has(LEASES, a_lease(""))

    def faster(write: Write) -> None:
        cluster.before_write = lambda _: None
        cluster.has(LEASES, a_lease("faster"))

    cluster.before_write = faster
    lock = a_lock(cluster)
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(1)
    assert not waiting.done()
    assert not may_write(lock)
    assert holder(cluster) == "faster"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_loses_the_race_for_a_new_lease_stands_by(cluster: FakeCluster) -> None:
    def faster(write: Write) -> None:
        cluster.before_write = lambda _: None
        cluster.has(LEASES, a_lease("faster"))

    cluster.before_write = faster
    waiting = asyncio.create_task(a_lock(cluster).acquire())
    await asyncio.sleep(1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_of_many_candidates_exactly_one_leads(cluster: FakeCluster) -> None:
    locks = [a_lock(cluster, str(number)) for number in range(5)]
    waiting = [asyncio.create_task(lock.acquire()) for lock in locks]
    await asyncio.sleep(5)
    assert sum(may_write(lock) for lock in locks) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_api_server_that_does_not_answer_is_asked_again_and_the_problem_is_told(cluster: FakeCluster) -> None:
    def down(_: str) -> None:
        raise OSError("connection refused")

    cluster.before_read = down
    lock = a_lock(cluster)
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(30)
    assert not waiting.done()
    assert lock.problem == "the lease ops/llamamodel-operator cannot be had: connection refused"
    cluster.before_read = lambda _: None
    await waiting
    assert lock.problem is None
    assert may_write(lock)


@pytest.mark.parametrize(
    "lease",
    [
        {"spec": {}},
        {},
        {"spec": None},
    ],
)
async def test_a_lease_without_a_holder_is_free(cluster: FakeCluster, lease: dict[str, Any]) -> None:
    cluster.has(LEASES, {"metadata": {"namespace": LEASE.namespace, "name": LEASE.name}, **lease})
    await a_lock(cluster).acquire()
    assert holder(cluster) == "one"


async def test_a_leader_that_renews_leads_for_ever(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    for _ in range(100):
        await asyncio.sleep(7)
        assert may_write(lock)
    spec = cluster.shows(LEASES, LEASE)["spec"]
    assert spec["leaseTransitions"] == 0
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_leader_that_cannot_renew_stops_writing_before_another_may_take_the_lease(cluster: FakeCluster) -> None:
    lock, standby = a_lock(cluster), a_lock(cluster, "two")
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    waiting = asyncio.create_task(standby.acquire())
    await asyncio.sleep(20)

    def cut_off(write: Write) -> None:
        if not waiting.done() and may_write(lock):
            raise ApiError(status=503, reason="", message="cut off")

    cluster.before_write = cut_off
    both, stopped_at, taken_at = False, 0.0, 0.0
    while not taken_at:
        await asyncio.sleep(0.1)
        both = both or (may_write(lock) and may_write(standby))
        if not stopped_at and not may_write(lock):
            stopped_at = asyncio.get_running_loop().time()
        if waiting.done():
            taken_at = asyncio.get_running_loop().time()
    assert not both
    assert stopped_at <= 20 + RENEW_DEADLINE_SEC
    assert stopped_at + RETRY_PERIOD_SEC <= taken_at <= 20 + LEASE_DURATION_SEC + 2 * RETRY_PERIOD_SEC
    with pytest.raises(LeaseLostError):
        await keeping
    assert may_write(standby)


async def test_a_renewal_counts_from_when_it_was_sent_not_from_when_it_was_answered(cluster: FakeCluster) -> None:
    class Slow(FakeCluster):
        async def replace(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            answer = await super().replace(*args, **kwargs)
            await asyncio.sleep(5)
            return answer

    lock = a_lock(Slow())
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    await asyncio.sleep(2 + 5.1)  # sent at 2, answered at 7
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await asyncio.sleep(2.8)
    assert may_write(lock)  # at 9.9
    await asyncio.sleep(0.2)
    assert not may_write(lock)


async def test_a_renewal_that_hangs_is_given_up_in_time(cluster: FakeCluster) -> None:
    class Hanging(FakeCluster):
        async def replace(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            await asyncio.sleep(3600)
            raise AssertionError

    lock = a_lock(Hanging())
    await lock.acquire()
    with pytest.raises(LeaseLostError):
        await lock.keep()
    assert asyncio.get_running_loop().time() <= LEASE_DURATION_SEC


async def test_a_frozen_leader_writes_nothing_more_from_the_moment_it_wakes(cluster: FakeCluster) -> None:
    clock = Clock()
    lock = a_lock(cluster, clock=clock)
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    await asyncio.sleep(5)
    assert may_write(lock)
    cluster.forget_writes()
    clock.frozen_for = 60
    assert not may_write(lock)
    with pytest.raises(LeaseLostError):
        await keeping
    assert not cluster.writes


@pytest.mark.parametrize(
    ("lost", "said"),
    [("taken", "thief holds the lease now"), ("deleted", "nobody holds the lease now|deleted the lease")],
)
async def test_a_leader_whose_lease_is_gone_knows_at_its_next_renewal(
    cluster: FakeCluster, lost: str, said: str
) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    if lost == "taken":
        cluster.has(LEASES, a_lease("thief"))
    else:
        cluster.loses(LEASES, LEASE)
    with pytest.raises(LeaseLostError, match=said):
        await lock.keep()
    assert asyncio.get_running_loop().time() <= RETRY_PERIOD_SEC
    assert not may_write(lock)


async def test_a_lease_is_released_although_a_renewal_was_cut_short() -> None:
    class Slow(FakeCluster):
        slow = True

        async def replace(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            answer = await super().replace(*args, **kwargs)
            if self.slow:
                self.slow = False
                await asyncio.sleep(3600)
            return answer

    cluster = Slow()
    lock = a_lock(cluster)
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    await asyncio.sleep(RETRY_PERIOD_SEC + 0.5)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await lock.release()
    assert holder(cluster) == ""


async def test_a_lease_that_another_took_is_not_released(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    cluster.has(LEASES, {**cluster.shows(LEASES, LEASE), "spec": a_lease("two")["spec"]})
    await lock.release()
    assert holder(cluster) == "two"


async def test_a_renewal_whose_answer_was_lost_costs_nobody_the_lease() -> None:
    class Lossy(FakeCluster):
        lost = False

        async def replace(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            answer = await super().replace(*args, **kwargs)
            if not self.lost:
                self.lost = True
                raise OSError("connection reset by peer")
            return answer

    lock = a_lock(Lossy())
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    await asyncio.sleep(30)
    still_leads = not keeping.done() and may_write(lock)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert still_leads


async def test_a_hiccup_of_the_api_server_costs_nobody_the_lease(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    keeping = asyncio.create_task(lock.keep())
    cluster.refuses("Lease", ApiError(status=500, reason="", message="etcd leader changed"))
    await asyncio.sleep(5)
    assert lock.problem == "the lease ops/llamamodel-operator cannot be had: etcd leader changed"
    cluster.before_write = lambda _: None
    await asyncio.sleep(60)
    assert may_write(lock)
    assert lock.problem is None
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_released_lease_is_free_at_once_and_its_holder_writes_nothing_more(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    await lock.release()
    assert holder(cluster) == ""
    assert not may_write(lock)
    await a_lock(cluster, "two").acquire()
    assert asyncio.get_running_loop().time() == 0


async def test_who_does_not_lead_releases_nothing(cluster: FakeCluster) -> None:
    clock = Clock()
    lock = a_lock(cluster, clock=clock)
    await lock.release()
    await lock.acquire()
    clock.frozen_for = 60
    cluster.forget_writes()
    await lock.release()
    assert not cluster.writes


async def test_a_lease_that_cannot_be_released_keeps_nobody_from_leaving(cluster: FakeCluster) -> None:
    lock = a_lock(cluster)
    await lock.acquire()
    cluster.refuses("Lease", OSError("gone"))
    await lock.release()
    assert not may_write(lock)
