"""Of two operators one works; whatever happens to it, the other takes over, and at no time do both write."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from .harness.accounts import an_administrator
from .harness.audit import AuditLog, Mark, Write
from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.kube import Kube
from .harness.models import a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess
from .harness.waiting import eventually

TAKEOVER_SEC = 20.0


@dataclass(frozen=True)
class Pair:
    """Two operators with one lease; the audit log knows them by their accounts."""

    leader: OperatorProcess
    standby: OperatorProcess
    mark: Mark

    def writes_of(self, name: str) -> list[Write]:
        user = f"system:serviceaccount:default:{name}"
        return [write for write in self.mark.writes() if write.user == user]

    def assert_that_they_wrote_one_after_the_other(self) -> None:
        """All writes of the first are older than all of the second."""
        first, second = self.writes_of("leader"), self.writes_of("standby")
        assert first, "the first one wrote nothing"
        assert second, "the second one wrote nothing"
        assert max(write.time for write in first) < min(write.time for write in second)


@pytest.fixture
def pair(bench: Bench, operators: Operators, kube: Kube, cluster: Cluster, audit: AuditLog) -> Pair:
    """The one that is called leader leads, the other stands by."""
    mark, lease = audit.mark(), f"{bench.namespace}"
    made = {
        name: operators.make(
            name,
            kubeconfig=an_administrator(name, kube=kube, cluster=cluster),
            lease_name=lease,
            resync_interval_sec=600,
        )
        for name in ("leader", "standby")
    }
    made["leader"].start_and_lead()
    made["standby"].start()
    eventually(lambda: made["standby"].messages("standing by"), what="the second one stands by")
    return Pair(made["leader"], made["standby"], mark)


@contextmanager
def work_for_the_leader(bench: Bench) -> Iterator[None]:
    """Somebody changes a model all the time, so that whoever leads has something to write."""
    bench.play_bound_claim()
    bench.create(a_model("busy"))
    bench.wait_for_reason("busy", "Starting")
    enough = threading.Event()

    def edit() -> None:
        number = 0
        while not enough.wait(0.1):
            number += 1
            bench.edit_spec("busy", engine={"contextSize": 1024 + number % 100})

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_the_one_that_stands_by_is_healthy_and_writes_nothing(bench: Bench, pair: Pair) -> None:
    with work_for_the_leader(bench):
        eventually(lambda: pair.writes_of("leader"), until=lambda found: len(found) > 10)

        assert pair.writes_of("standby") == []
        assert pair.standby.http("/healthz")[0] == 200
        assert pair.standby.http("/readyz")[0] == 200
        assert pair.standby.metric("leader") == 0
        assert pair.leader.metric("leader") == 1


def test_a_leader_that_is_asked_to_stop_hands_over_at_once(bench: Bench, pair: Pair) -> None:
    with work_for_the_leader(bench):
        begun = time.monotonic()
        assert pair.leader.stop() == 0
        eventually(lambda: pair.standby.leads, what="the second one leads", within=10)
        assert time.monotonic() - begun < 10
        eventually(lambda: pair.writes_of("standby"), what="the second one writes")

    pair.assert_that_they_wrote_one_after_the_other()
    assert any("released the lease" in message for message in pair.leader.messages())


def test_when_the_leader_is_killed_the_other_leads_in_time(bench: Bench, pair: Pair) -> None:
    with work_for_the_leader(bench):
        pair.leader.signal(signal.SIGKILL)
        eventually(lambda: pair.standby.leads, what="the second one leads", within=TAKEOVER_SEC)
        eventually(lambda: pair.writes_of("standby"), what="the second one writes")

    pair.assert_that_they_wrote_one_after_the_other()


def test_a_frozen_leader_is_replaced_and_never_writes_again(bench: Bench, pair: Pair) -> None:
    with work_for_the_leader(bench):
        eventually(lambda: pair.writes_of("leader"), what="the first one writes")
        pair.leader.signal(signal.SIGSTOP)
        eventually(lambda: pair.standby.leads, what="the second one leads", within=TAKEOVER_SEC)
        eventually(lambda: pair.writes_of("standby"), what="the second one writes")
        thawed = time.time()
        pair.leader.signal(signal.SIGCONT)

        assert pair.leader.wait() == 1
        assert pair.leader.messages("not leading any more")
        eventually(
            lambda: pair.writes_of("standby")[-1].time, until=lambda last: last > thawed + 1, what="the second goes on"
        )

    pair.assert_that_they_wrote_one_after_the_other()


def test_a_leader_whose_lease_is_taken_from_it_leaves_and_comes_back_as_standby(
    bench: Bench, operators: Operators, kube: Kube
) -> None:
    operator = operators.make("operator", lease_name=bench.namespace)
    operator.start_and_lead()

    taken = {"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3600}}
    kube.merge("Lease", "default", bench.namespace, taken)

    assert operator.wait() == 1
    assert operator.messages("somebody-else holds the lease now")
    operator.start()
    eventually(lambda: operator.messages("standing by, somebody-else leads"))
    assert operator.stop() == 0, "also one that stands by stops when it is asked to"


def test_without_leader_election_there_is_no_lease(bench: Bench, operators: Operators, audit: AuditLog) -> None:
    mark = audit.mark()
    operator = operators.make("operator", leader_election=False)
    operator.start_and_lead()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    assert [write for write in mark.writes(leases=True) if write.what == "leases"] == []
    assert operator.stop() == 0
