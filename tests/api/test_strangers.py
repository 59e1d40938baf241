"""An object of the same name that is not ours is reported and never touched, and nobody else suffers."""

from __future__ import annotations

import pytest

from .harness.audit import Mark
from .harness.bench import Bench, condition
from .harness.models import Manifest, a_deployment, a_model, a_service
from .harness.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")

SOMEBODY = {"apiVersion": "example.com/v1", "kind": "Website", "name": "shop", "uid": "1-2-3", "controller": True}
MANAGED = {"app.kubernetes.io/managed-by": "llamamodel-operator", "llamamodel.dev/model": "gemma"}

STRANGERS = (
    pytest.param(a_deployment("gemma"), id="a Deployment that nobody controls"),
    pytest.param(a_service("gemma"), id="a Service that nobody controls"),
    pytest.param(a_deployment("gemma").owned_by(SOMEBODY), id="a Deployment of another controller"),
    pytest.param(a_service("gemma").owned_by(SOMEBODY), id="a Service of another controller"),
    pytest.param(
        a_deployment("gemma").owned_by(SOMEBODY).labelled(MANAGED),
        id="a Deployment of another controller with our labels",
    ),
)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_named_left_alone_and_outlived(stranger: Manifest, bench: Bench, mark: Mark) -> None:
    before = bench.create(stranger)
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.create(a_model("other"))

    model = bench.wait_for_reason("gemma", "NotOurs", kind="Accepted")

    accepted, ready = condition(model, "Accepted"), condition(model, "Ready")
    assert accepted["status"] == ready["status"] == "False"
    assert ready["reason"] == "NotOurs"
    assert accepted["message"].startswith(f"{stranger.kind} gemma already exists")
    assert "rename or delete it, or give the LlamaModel another name" in accepted["message"]
    if stranger.owners:
        assert "belongs to Website shop" in accepted["message"]
    assert model["status"]["phase"] == "Failed"
    bench.wait_for_reason("other", "Starting")
    assert bench.get(stranger.kind, "gemma") == before
    touching = [write for write in mark.writes(namespace=bench.namespace) if write.name == "gemma"]
    assert [write for write in touching if write.what == f"{stranger.kind.lower()}s"] == []

    bench.delete(stranger.kind, "gemma")

    bench.wait_for_reason("gemma", "Starting", within=20)
    bench.wait_for_reason("gemma", "Accepted", kind="Accepted")


def test_two_models_of_one_child_name_are_told_apart(bench: Bench) -> None:
    bench.play_bound_claim()
    bench.create(a_model("qwen2.5"))
    child = bench.wait_for_reason("qwen2.5", "Starting")["status"]["endpoint"].split("/")[2].split(".")[0]

    bench.create(a_model(child))

    model = bench.wait_for_reason(child, "NotOurs", kind="Accepted")
    assert "belongs to LlamaModel qwen2.5" in condition(model, "Accepted")["message"]
    bench.wait_for_reason("qwen2.5", "Starting")


def test_a_model_does_not_count_the_pods_of_the_one_whose_child_name_it_shares(bench: Bench) -> None:
    bench.play_bound_claim()
    bench.create(a_model("qwen2.5"))
    child = bench.wait_for_reason("qwen2.5", "Starting")["status"]["endpoint"].split("/")[2].split(".")[0]
    bench.play_rollout(child)
    bench.wait_for_reason("qwen2.5", "Ready")

    bench.create(a_model(child))

    model = bench.wait_for_reason(child, "NotOurs", kind="Accepted")
    assert condition(model, "Available")["status"] == "False"
    assert model["status"]["readyReplicas"] == 0


def test_a_model_that_was_made_anew_gets_new_children_once_the_old_ones_are_collected(bench: Bench) -> None:
    bench.play_bound_claim()
    old = bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.delete("LlamaModel", "gemma")
    new = bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "NotOurs", kind="Accepted")

    assert bench.play_garbage_collector(old["metadata"]["uid"]) == ["Deployment gemma", "Service gemma"]

    bench.wait_for_reason("gemma", "Starting", within=20)
    for kind in ("Deployment", "Service"):
        (owner,) = bench.get(kind, "gemma")["metadata"]["ownerReferences"]
        assert owner["uid"] == new["metadata"]["uid"]


def test_nothing_is_written_for_a_model_that_is_being_deleted(
    bench: Bench, operator: OperatorProcess, mark: Mark
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.edit("LlamaModel", "gemma", {"metadata": {"finalizers": ["example.com/somebody-elses"]}})
    written = len(mark.writes())

    bench.delete("LlamaModel", "gemma")
    bench.delete("Deployment", "gemma")
    bench.create(a_model("later"))
    bench.wait_for_reason("later", "Starting")

    assert bench.find("Deployment", "gemma") is None
    assert {write.name for write in mark.writes()[written:]} == {"later"}
