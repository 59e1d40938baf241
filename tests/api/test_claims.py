"""A claim that is missing, waits for its volume, has lost it, or goes: each is told by name, and others are served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness.bench import Bench, condition
from .harness.kube import Obj
from .harness.models import a_claim, a_model
from .harness.process import OperatorProcess
from .harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def other(bench: Bench) -> Iterator[Obj]:
    """A model that reads from a claim that is well; it must not change whatever happens to the other claim."""
    bench.play_bound_claim("sound")
    bench.create(a_model("other").reading("m.gguf", claim="sound"))
    before = bench.wait_for_reason("other", "Starting")
    yield before
    assert bench.get("LlamaModel", "other") == before


def test_a_missing_claim_is_named_with_what_to_do(bench: Bench, other: Obj) -> None:
    bench.create(a_model("gemma").reading("m.gguf", claim="team.models"))

    model = bench.wait_for_reason("gemma", "ClaimNotFound")

    assert condition(model)["message"] == (
        f"PersistentVolumeClaim team.models in namespace {bench.namespace} does not exist:"
        " create it, or correct spec.model.pvc.claimName; see docs/troubleshooting.md#claimnotfound"
    )
    assert condition(model, "Accepted")["status"] == "True"
    assert condition(model, "Progressing")["status"] == "False"


def test_a_claim_that_comes_is_followed_on_its_way(bench: Bench, other: Obj) -> None:
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    bench.apply(a_claim())
    pending = bench.wait_for_reason("gemma", "ClaimPending")
    assert "PersistentVolumeClaim models" in condition(pending)["message"]
    assert condition(pending, "Progressing")["status"] == "True"

    bench.play_claim_phase("models", "Bound")
    bench.wait_for_reason("gemma", "Starting")

    bench.play_claim_phase("models", "Lost")
    lost = bench.wait_for_reason("gemma", "ClaimLost")
    assert "PersistentVolumeClaim models" in condition(lost)["message"]
    assert lost["status"]["phase"] == "Failed"


def test_a_claim_that_is_deleted_is_missed(bench: Bench, other: Obj) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")

    bench.edit("PersistentVolumeClaim", "models", {"metadata": {"finalizers": None}})
    bench.delete("PersistentVolumeClaim", "models")

    bench.wait_for_reason("gemma", "ClaimNotFound")


def test_a_claim_that_is_being_deleted_is_no_fault_of_a_model_that_is_served_from_it(bench: Bench, other: Obj) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")
    bench.wait_for_reason("gemma", "Ready")

    bench.edit("PersistentVolumeClaim", "models", {"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}})
    bench.delete("PersistentVolumeClaim", "models")
    claim = bench.get("PersistentVolumeClaim", "models")
    assert "deletionTimestamp" in claim["metadata"]
    bench.create(a_model("late"))
    bench.wait_until_settled("late")

    assert condition(bench.get("LlamaModel", "gemma"))["reason"] == "Ready"


def test_another_claim_in_the_spec_is_another_claim_in_the_message(bench: Bench, other: Obj) -> None:
    bench.create(a_model("gemma").reading("m.gguf", claim="first"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    bench.edit_spec("gemma", model={"pvc": {"claimName": "second"}})

    model = bench.wait_for_reason("gemma", "ClaimNotFound")
    assert "PersistentVolumeClaim second" in condition(model)["message"]
    bench.play_bound_claim("second")
    bench.wait_for_reason("gemma", "Starting")


def test_a_claim_of_the_same_name_in_another_namespace_does_not_count(bench: Bench, operator: OperatorProcess) -> None:
    other_place = f"{bench.namespace}-b"
    bench.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other_place}})
    elsewhere = Bench(kube=bench.kube, cluster=bench.cluster, namespace=other_place)
    elsewhere.play_bound_claim()
    bench.create(a_model("gemma"))

    bench.wait_for_reason("gemma", "ClaimNotFound")
    elsewhere.play_namespace_controller()


def test_one_claim_serves_many_models(bench: Bench) -> None:
    names = [f"m{number}" for number in range(5)]
    for name in names:
        bench.create(a_model(name))
    for name in names:
        bench.wait_for_reason(name, "ClaimNotFound")

    bench.play_bound_claim()

    eventually(
        lambda: {condition(model).get("reason") for model in bench.kube.list("LlamaModel", bench.namespace)},
        until=lambda reasons: reasons == {"Starting"},
    )
