"""Whatever happens while the operator is down: when it is back all is right, with no write more than that takes."""

from __future__ import annotations

import signal

import pytest

from .harness.audit import AuditLog, summary
from .harness.bench import Bench, condition
from .harness.models import a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess
from .harness.waiting import eventually


@pytest.fixture
def operator(bench: Bench, operators: Operators) -> OperatorProcess:
    """An operator that a test stops and starts; it is ended before the namespace is emptied."""
    made = operators.make("operator", resync_interval_sec=600)
    made.start_and_lead()
    return made


def _statuses(bench: Bench) -> set[str]:
    return {condition(model).get("reason", "") for model in bench.kube.list("LlamaModel", bench.namespace)}


def test_two_models_are_put_right_with_the_fewest_writes(
    bench: Bench, operator: OperatorProcess, audit: AuditLog
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("one"))
    bench.create(a_model("two"))
    bench.wait_for_reason("one", "Starting")
    bench.wait_for_reason("two", "Starting")
    assert operator.stop() == 0
    mark = audit.mark()

    bench.edit_spec("one", engine={"threads": 5})
    bench.delete("Service", "one")
    bench.edit("Deployment", "two", {"spec": {"replicas": 7}})
    bench.edit("Service", "two", {"metadata": {"labels": None}})
    operator.start_and_lead()

    one = bench.wait_until_settled("one")
    eventually(lambda: bench.get("Deployment", "two")["spec"]["replicas"], until=lambda number: number == 1)
    eventually(lambda: bench.get("Service", "two")["metadata"].get("labels"), what="the labels are back")
    assert "--threads" in one["status"]["command"]
    assert bench.find("Service", "one") is not None
    assert summary(mark.writes()) == [
        *["patch deployments"] * 2,
        "patch llamamodels/status",
        *["patch services"] * 2,
    ]


def test_a_deleted_model_stays_deleted_and_one_of_the_same_name_is_another(
    bench: Bench, operator: OperatorProcess, audit: AuditLog
) -> None:
    bench.play_bound_claim()
    for name in ("gone", "anew", "kept"):
        bench.create(a_model(name))
    for name in ("gone", "anew", "kept"):
        bench.wait_for_reason(name, "Starting")
    old = bench.get("LlamaModel", "anew")
    operator.stop()
    mark = audit.mark()

    for name in ("gone", "anew"):
        uid = bench.get("LlamaModel", name)["metadata"]["uid"]
        bench.delete("LlamaModel", name)
        bench.play_garbage_collector(uid)
    bench.create(a_model("anew").with_(replicas=3))
    operator.start_and_lead()

    new = bench.wait_for_reason("anew", "Starting")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert bench.get("Deployment", "anew")["spec"]["replicas"] == 3
    assert bench.find("Deployment", "gone") is None
    assert {write.name for write in mark.writes()} == {"anew"}


def test_a_model_is_deleted_while_the_operator_is_down(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(a_model("gemma"))
    bench.wait_until_settled("gemma")
    operator.stop()

    bench.kubectl("delete", "lm/gemma", "--timeout=10s")

    assert bench.find("LlamaModel", "gemma") is None
    (owner,) = bench.get("Deployment", "gemma")["metadata"]["ownerReferences"]
    assert owner["kind"] == "LlamaModel", "by which the garbage collector finds the Deployment"


def test_a_killed_operator_leaves_nothing_half_done(
    bench: Bench, operator: OperatorProcess, operators: Operators
) -> None:
    bench.play_bound_claim()
    for number in range(20):
        bench.create(a_model(f"m{number}"))
    operator.signal(signal.SIGKILL)
    operator.wait()

    successor = operators.make("successor", resync_interval_sec=600)
    successor.start_and_lead()

    eventually(lambda: _statuses(bench), until=lambda reasons: reasons == {"Starting"})
    assert len(bench.kube.list("Deployment", bench.namespace)) == 20
    assert len(bench.kube.list("Service", bench.namespace)) == 20


def test_a_hundred_models_take_three_writes_each_and_a_restart_takes_none(
    bench: Bench, operator: OperatorProcess, audit: AuditLog
) -> None:
    hundred = [a_model(f"m{number:02}") for number in range(100)]
    bench.play_bound_claim()
    mark = audit.mark()
    for model in hundred:
        bench.create(model)

    eventually(lambda: _statuses(bench), until=lambda reasons: reasons == {"Starting"}, within=60)
    assert summary(mark.writes()) == [
        *["patch deployments"] * 100,
        *["patch llamamodels/status"] * 100,
        *["patch services"] * 100,
    ]
    operator.stop()
    mark = audit.mark()
    for number in range(0, 100, 10):
        bench.edit_spec(f"m{number:02}", replicas=2)
        bench.delete("Service", f"m{number + 1:02}")
    operator.start_and_lead()

    eventually(lambda: len(bench.kube.list("Service", bench.namespace)), until=lambda number: number == 100)
    for number in range(0, 100, 10):
        bench.wait_until_settled(f"m{number:02}")
    eventually(lambda: operator.passes, until=lambda passes: passes >= 100)
    assert summary(mark.writes()) == [
        *["patch deployments"] * 10,
        *["patch llamamodels/status"] * 10,
        *["patch poddisruptionbudgets"] * 10,
        *["patch services"] * 10,
    ]
