"""One pass over one LlamaModel: writes what is missing or changed, touches nothing foreign, and then rests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llamamodel_operator.api.labels import MANAGED_BY_LABEL, MODEL_LABEL
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.observed import Proof, ServerReport
from llamamodel_operator.shell.client import (
    DEPLOYMENTS,
    EVENTS,
    MODELS,
    PODS,
    SERVICES,
    ApiError,
)
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.reconciler import RefusedError
from llamamodel_operator.shell.store import Key

from .builders import a_deployment, a_model, a_pod, at
from .fake_cluster import FakeCluster, Write
from .world import GEMMA, World

FIRST_PASS = [
    Write("apply", "Service", "gemma"),
    Write("apply", "Deployment", "gemma"),
    Write("apply-status", "LlamaModel", "gemma"),
]


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster)


async def test_the_first_pass_writes_deployment_service_and_status(world: World) -> None:
    world.has_claim()
    world.has(a_model())
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == FIRST_PASS
    assert world.ready() == ("Starting", "starting: no pod yet, none answers so far")


async def test_a_missing_claim_is_told_in_the_status_and_by_an_event(world: World) -> None:
    world.has(a_model())
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes[:3] == FIRST_PASS
    assert [write.kind for write in world.cluster.writes[3:]] == ["Event"]
    assert world.ready()[0] == "ClaimNotFound"


async def test_servers_are_asked_for_what_their_command_line_makes_them_do(world: World) -> None:
    world.has(a_model().with_spec(servedModelName="vectors", extraArgs=["--embeddings", "--pooling", "mean"]))
    await world.reconciler.reconcile(GEMMA)
    assert world.prober.expected == Expected(name="vectors", task=Task.EMBED)


async def test_the_second_pass_writes_nothing(world: World) -> None:
    world.has(a_model())
    await world.settles()
    for _ in range(3):
        await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_a_new_operator_with_an_empty_cache_writes_nothing_where_nothing_changed(
    world: World, cluster: FakeCluster
) -> None:
    world.has(a_model())
    await world.settles()
    another = World(cluster)
    another.store.put(MODELS, cluster.shows(MODELS, GEMMA))
    await another.reconciler.reconcile(GEMMA)
    assert cluster.writes == []


async def test_what_was_read_in_lists_is_no_difference(world: World, cluster: FakeCluster) -> None:
    world.has(a_model())
    await world.settles()
    another = World(cluster)
    for resource in (MODELS, DEPLOYMENTS, SERVICES):
        async for items in cluster.list(resource):
            for raw in items:
                another.store.put(resource, raw)
    await another.reconciler.reconcile(GEMMA)
    assert cluster.writes == []


async def test_what_is_written_is_what_is_planned(world: World) -> None:
    model = a_model().with_gpu(2)
    world.has(model)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"] == model.deployment()["spec"]
    assert world.cluster.shows(SERVICES, GEMMA)["spec"] == model.service()["spec"]


async def test_a_changed_spec_changes_the_deployment_and_the_status_and_not_the_service(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.has(a_model().at_generation(2).with_engine(contextSize=1024))
    await world.reconciler.reconcile(GEMMA)
    assert [write for write in world.cluster.writes if write.kind != "Event"] == [FIRST_PASS[1], FIRST_PASS[2]]
    assert world.cluster.shows(MODELS, GEMMA)["status"]["observedGeneration"] == 2


async def test_a_label_of_the_model_alone_writes_nothing(world: World) -> None:
    world.has(a_model())
    await world.settles()
    raw = world.cluster.shows(MODELS, GEMMA)
    raw["metadata"]["labels"] = {"team": "search"}
    world.store.put(MODELS, world.cluster.has(MODELS, raw))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_a_child_that_was_deleted_comes_back(world: World) -> None:
    world.has(a_model())
    await world.settles()
    for resource in (SERVICES, DEPLOYMENTS):
        gone = world.cluster.shows(resource, GEMMA)
        world.cluster.loses(resource, GEMMA)
        world.store.remove(resource, gone)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == FIRST_PASS[:2]


async def test_a_child_that_was_changed_by_hand_is_put_back_and_counted(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.someone_edits(lambda raw: raw["spec"].update(replicas=7))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == [FIRST_PASS[1]]
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["replicas"] == 1
    assert _sample(world.metrics, "llamamodel_operator_drift_repaired_total", kind="Deployment") == 1


async def test_a_change_of_the_spec_is_no_drift(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.has(a_model().at_generation(2).with_replicas(3))
    await world.reconciler.reconcile(GEMMA)
    assert _sample(world.metrics, "llamamodel_operator_drift_repaired_total", kind="Deployment") == 0


async def test_a_field_that_is_no_longer_wanted_is_taken_out_although_it_is_no_difference(world: World) -> None:
    world.has(a_model().with_spec(env=[{"name": "A", "value": "1"}]))
    await world.settles()
    world.has(a_model().at_generation(2))
    await world.reconciler.reconcile(GEMMA)
    assert FIRST_PASS[1] in world.cluster.writes
    (container,) = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["spec"]["containers"]
    assert [entry["name"] for entry in container["env"]] == ["HOME", "OMP_WAIT_POLICY"]


async def test_a_foreign_annotation_and_a_sidecar_stay(world: World) -> None:
    world.has(a_model())
    await world.settles()

    def inject(raw: dict[str, Any]) -> None:
        raw["metadata"]["annotations"]["theirs"] = "1"
        raw["spec"]["template"]["spec"]["containers"].insert(0, {"name": "istio-proxy"})

    world.someone_edits(inject)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_a_write_names_the_object_that_it_is_for_so_that_no_other_is_hit(world: World) -> None:
    world.has(a_model())
    await world.settles()
    uid = world.cluster.shows(DEPLOYMENTS, GEMMA)["metadata"]["uid"]
    world.someone_edits(lambda raw: raw["spec"].update(replicas=7))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.bodies[0]["metadata"]["uid"] == uid


async def test_what_the_api_server_keeps_in_another_way_is_not_sent_again_and_again(world: World) -> None:
    class Stubborn(FakeCluster):
        async def apply(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            answer = await super().apply(*args, **kwargs)
            if answer["kind"] == "Deployment":
                answer["spec"]["progressDeadlineSeconds"] = 42
                return self.has(DEPLOYMENTS, answer)
            return answer

    stubborn = World(Stubborn())
    stubborn.has(a_model())
    await stubborn.settles()
    await stubborn.reconciler.reconcile(GEMMA)
    assert stubborn.cluster.writes == []
    stubborn.someone_edits(lambda raw: raw["spec"].update(replicas=7))
    await stubborn.reconciler.reconcile(GEMMA)
    assert stubborn.cluster.writes == [FIRST_PASS[1]]


# Deleted models


async def test_a_model_that_nobody_knows_is_done(world: World) -> None:
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_a_model_that_is_being_deleted_is_left_to_the_garbage_collector(world: World) -> None:
    world.has(a_model().being_deleted())
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


@pytest.mark.parametrize("status", [404, 409])
async def test_a_model_that_is_deleted_during_its_pass_ends_the_pass_in_peace(world: World, status: int) -> None:
    world.has_claim()
    world.has(a_model())
    world.cluster.refuses("LlamaModel", ApiError(status=status, reason="", message="gone"))
    await world.reconciler.reconcile(GEMMA)
    assert [write.kind for write in world.cluster.writes] == ["Service", "Deployment"]


async def test_a_model_that_proves_to_be_gone_is_forgotten(world: World) -> None:
    world.has(a_model())
    world.cluster.loses(MODELS, GEMMA)
    await world.settles()
    for resource in (DEPLOYMENTS, SERVICES):
        world.store.discard(resource, GEMMA)
        world.cluster.loses(resource, GEMMA)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


# Refusals


@pytest.mark.parametrize(
    ("owner", "belongs"),
    [
        (None, "was not made by this operator"),
        ({"kind": "Helm", "name": "x", "uid": "u", "controller": True}, "belongs to Helm x"),
        (
            {"kind": "LlamaModel", "name": "gemma", "uid": "an-earlier-one", "controller": True},
            "belongs to LlamaModel gemma",
        ),
    ],
)
async def test_an_object_that_is_not_ours_is_left_alone_and_told_of(
    world: World, owner: dict[str, Any] | None, belongs: str
) -> None:
    foreign: dict[str, Any] = {
        "kind": "Service",
        "metadata": {"name": "gemma", "namespace": "demo"},
        "spec": {"theirs": 1},
    }
    if owner:
        foreign["metadata"]["ownerReferences"] = [owner]
    world.cluster.has(SERVICES, foreign)
    world.has(a_model())
    with pytest.raises(RefusedError, match="Service gemma already exists"):
        await world.reconciler.reconcile(GEMMA)
    assert world.ready() == (
        "NotOurs",
        f"Service gemma already exists and {belongs}; it is left as it is: rename or delete it, or give the"
        " LlamaModel another name",
    )
    assert world.cluster.shows(SERVICES, GEMMA)["spec"] == {"theirs": 1}
    assert Write("apply", "Service", "gemma") not in world.cluster.writes


async def test_a_service_that_is_somebody_elses_leaves_no_deployment_that_takes_a_gpu(world: World) -> None:
    world.has_claim()
    world.has(a_model().with_gpu())
    world.cluster.has(SERVICES, {"kind": "Service", "metadata": {"name": "gemma", "namespace": "demo"}})
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert world.cluster.keys(DEPLOYMENTS) == set()


async def test_children_are_not_made_again_for_a_model_that_is_gone(world: World) -> None:
    world.has_claim()
    world.has(a_model().suspended())
    await world.settles()
    world.cluster.loses(MODELS, GEMMA)
    for resource in (DEPLOYMENTS, SERVICES):
        world.store.discard(resource, GEMMA)
        world.cluster.loses(resource, GEMMA)
    world.store.put(MODELS, a_model().suspended().raw() | {"status": {"phase": "Suspended"}})
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []
    assert world.store.get(MODELS, GEMMA) is None


async def test_a_webhook_that_is_down_is_a_condition_and_no_silence(world: World) -> None:
    world.has(a_model())
    down = 'Internal error occurred: failed calling webhook "x.example.com": connection refused'
    world.cluster.refuses("Deployment", ApiError(status=500, reason="InternalError", message=down))
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert world.ready()[0] == "ObjectRefused"
    assert "failed calling webhook" in world.ready()[1]


async def test_a_refusal_is_told_once_and_mended_when_its_cause_is_gone(world: World) -> None:
    world.has_claim()
    world.has(a_model())
    world.cluster.has(SERVICES, {"kind": "Service", "metadata": {"name": "gemma", "namespace": "demo"}})
    with pytest.raises(RefusedError):
        await world.settles()
    world.cluster.forget_writes()
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []
    world.cluster.loses(SERVICES, GEMMA)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == FIRST_PASS
    assert world.ready()[0] == "Starting"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ApiError(status=422, reason="Invalid", message="spec.replicas: Invalid value"), "ObjectRefused"),
        (ApiError(status=400, reason="BadRequest", message="bad"), "ObjectRefused"),
        (ApiError(status=404, reason="NotFound", message="namespace not found"), "ObjectRefused"),
        (ApiError(status=403, reason="Forbidden", message="may not"), "Forbidden"),
        (ApiError(status=403, reason="Forbidden", message="forbidden: exceeded quota: count/x"), "QuotaExceeded"),
    ],
)
async def test_what_the_api_server_refuses_is_a_condition_and_comes_again_later(
    world: World, error: ApiError, reason: str
) -> None:
    world.has(a_model())
    world.cluster.refuses("Deployment", error)
    with pytest.raises(RefusedError, match="the API server refuses Deployment gemma"):
        await world.reconciler.reconcile(GEMMA)
    assert world.ready() == (reason, f"the API server refuses Deployment gemma: {error.message}")
    accepted = world.cluster.shows(MODELS, GEMMA)["status"]["conditions"][0]
    assert (accepted["type"], accepted["status"]) == ("Accepted", "False")


async def test_a_refused_child_does_not_keep_the_others_from_being_written(world: World) -> None:
    world.has(a_model())
    world.cluster.refuses("Deployment", ApiError(status=422, reason="Invalid", message="no"))
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert FIRST_PASS[0] in world.cluster.writes


def refuses_to_stand_beside_the_edit(world: World, times: int) -> None:
    """The first writes of the Deployment are refused as invalid."""
    left = [times]

    def check(write: Write) -> None:
        if write.kind == "Deployment" and left[0]:
            left[0] -= 1
            raise ApiError(status=422, reason="Invalid", message="ports: Duplicate value")

    world.cluster.before_write = check


async def test_a_hand_edit_that_ours_cannot_stand_beside_is_replaced_first(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.someone_edits(lambda raw: raw["spec"]["template"]["spec"]["containers"][0]["args"].append("--evil"))
    refuses_to_stand_beside_the_edit(world, times=1)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == [Write("patch", "Deployment", "gemma"), Write("apply", "Deployment", "gemma")]
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"] == a_model().deployment()["spec"]


async def test_what_is_invalid_in_itself_is_still_a_condition(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.has(a_model().at_generation(2).with_engine(threads=2))
    refuses_to_stand_beside_the_edit(world, times=2)
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert world.ready()[0] == "ObjectRefused"


@pytest.mark.parametrize("status", [401, 408, 409, 429, 500, 503])
async def test_an_error_that_passes_is_no_condition_but_another_try(world: World, status: int) -> None:
    world.has(a_model())
    world.cluster.refuses("Service", ApiError(status=status, reason="", message="later"))
    with pytest.raises(ApiError, match="later"):
        await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_a_status_that_cannot_be_written_is_another_try(world: World) -> None:
    world.has(a_model())
    world.cluster.refuses("LlamaModel", ApiError(status=500, reason="", message="later"))
    with pytest.raises(ApiError, match="later"):
        await world.reconciler.reconcile(GEMMA)


async def test_a_stale_cache_does_not_make_a_second_object_out_of_a_deleted_one(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.cluster.loses(DEPLOYMENTS, GEMMA)  # and no watch told of it
    world.has(a_model().at_generation(2).with_replicas(2))
    with pytest.raises(ApiError) as conflict:
        await world.reconciler.reconcile(GEMMA)
    assert conflict.value.status == 409


# Pruning


def an_extra_service(**labels: str) -> dict[str, Any]:
    service = a_model().service()
    metadata = {**service["metadata"], "name": "gemma-old", "uid": "old", "labels": labels}
    return {**service, "metadata": metadata}


async def test_a_child_that_is_no_longer_wanted_is_deleted(world: World) -> None:
    world.has(a_model())
    await world.settles()
    extra = an_extra_service(**{MANAGED_BY_LABEL: "llamamodel-operator", MODEL_LABEL: "gemma"})
    world.store.put(SERVICES, world.cluster.has(SERVICES, extra))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == [Write("delete", "Service", "gemma-old")]


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["labels"].pop(MANAGED_BY_LABEL),
        lambda metadata: metadata["labels"].pop(MODEL_LABEL),
        lambda metadata: metadata.pop("ownerReferences"),
        lambda metadata: metadata["ownerReferences"][0].update(uid="another-model"),
        lambda metadata: metadata.update(deletionTimestamp=at("12:00:00")),
    ],
)
async def test_what_is_not_clearly_ours_or_goes_already_is_never_deleted(
    world: World, change: Callable[[dict[str, Any]], object]
) -> None:
    world.has(a_model())
    await world.settles()
    extra = an_extra_service(**{MANAGED_BY_LABEL: "llamamodel-operator", MODEL_LABEL: "gemma"})
    change(extra["metadata"])
    world.store.put(SERVICES, world.cluster.has(SERVICES, extra))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


# Status


async def test_pods_claim_and_deployment_from_the_cache_decide_the_status(world: World) -> None:
    world.has(a_model())
    world.has_claim()
    await world.settles()
    world.store.put(PODS, a_pod().of_revision(a_model().plan().revision).ready().raw())
    world.someone_edits(lambda raw: raw.update(status=a_deployment().rolled_out().raw()["status"]))
    await world.reconciler.reconcile(GEMMA)
    assert world.ready()[0] == "Ready"
    assert [write.kind for write in world.cluster.writes] == ["LlamaModel", "Event"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_a_finished_pod_is_no_pod(world: World, phase: str) -> None:
    world.has(a_model())
    world.has_claim()
    world.store.put(PODS, a_pod().that_ended().finished(phase).raw())
    await world.reconciler.reconcile(GEMMA)
    assert world.ready()[0] == "Starting"
    assert world.cluster.shows(MODELS, GEMMA)["status"]["replicas"] == 0


async def test_a_spec_that_changed_while_the_status_was_written_gets_another_pass(world: World) -> None:
    world.has(a_model())

    def change(write: Write) -> None:
        if write.kind == "LlamaModel":
            world.cluster.has(MODELS, a_model().at_generation(2).with_replicas(2).raw())

    world.cluster.before_write = change
    await world.reconciler.reconcile(GEMMA)
    assert world.again == [GEMMA]
    stored = world.store.get(MODELS, GEMMA)
    assert stored is not None
    assert stored["spec"]["replicas"] == 2


async def test_a_spec_that_did_not_change_gets_no_other_pass(world: World) -> None:
    world.has(a_model())
    await world.reconciler.reconcile(GEMMA)
    assert world.again == []


async def test_a_build_that_a_server_tells_gets_one_more_pass_which_plans_by_it(world: World) -> None:
    def findings() -> list[str]:
        return [finding["code"] for finding in world.cluster.shows(MODELS, GEMMA)["status"].get("findings", [])]

    model = a_model().with_spec(image="example.com/llama-server:mine")
    world.has(model)
    world.has_claim()
    await world.settles()
    assert "BuildUnknown" in findings()
    world.store.put(PODS, a_pod().of_revision(model.plan().revision).ready().raw())
    world.prober.says["gemma-0"] = ServerReport(build=11669, proof=Proof.ANSWERS)
    world.again.clear()
    await world.reconciler.reconcile(GEMMA)
    assert world.again == [GEMMA]
    await world.reconciler.reconcile(GEMMA)
    assert "BuildUnknown" not in findings()
    assert world.again == [GEMMA]


async def test_the_status_is_written_for_this_very_model_and_not_for_a_new_one_of_its_name(world: World) -> None:
    world.has(a_model().with_uid("old"))
    world.cluster.loses(MODELS, GEMMA)
    world.cluster.has(MODELS, a_model().with_uid("new").raw())
    await world.reconciler.reconcile(GEMMA)
    assert "status" not in world.cluster.shows(MODELS, GEMMA)


async def test_an_invalid_spec_is_a_status_and_touches_no_child(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.has(a_model().at_generation(2).with_spec(startupTimeoutSec=0))
    await world.reconciler.reconcile(GEMMA)
    assert {write.kind for write in world.cluster.writes} == {"LlamaModel", "Event"}
    assert world.ready() == (
        "InvalidSpec",
        "spec.startupTimeoutSec: Input should be greater than or equal to 1 (found 0)",
    )
    world.cluster.forget_writes()
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_the_status_carries_our_fields_and_nothing_of_the_metadata(world: World) -> None:
    world.has(a_model())
    await world.reconciler.reconcile(GEMMA)
    (body,) = (body for body in world.cluster.bodies if body.get("kind") == "LlamaModel")
    assert set(body) == {"apiVersion", "kind", "metadata", "status"}
    assert set(body["metadata"]) == {"name", "namespace", "uid"}


# Events


async def test_an_event_is_sent_after_the_status_it_tells_of_was_written(world: World) -> None:
    world.has(a_model())
    await world.reconciler.reconcile(GEMMA)
    assert [write.kind for write in world.cluster.writes][-2:] == ["LlamaModel", "Event"]
    (event,) = (body for body in world.cluster.bodies if body.get("kind") == "Event")
    assert event["reason"] == "ClaimNotFound"
    assert event["regarding"]["name"] == "gemma"


async def test_no_event_is_sent_for_a_status_that_could_not_be_written(world: World) -> None:
    world.has(a_model())
    world.cluster.refuses("LlamaModel", ApiError(status=409, reason="Conflict", message="gone"))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.keys(EVENTS) == set()


@pytest.mark.parametrize("status", [403, 409, 500])
async def test_an_event_that_is_refused_harms_nothing(world: World, status: int) -> None:
    world.has(a_model())
    world.cluster.refuses("Event", ApiError(status=status, reason="", message="no"))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == FIRST_PASS


@pytest.mark.parametrize("error", [OSError("connection reset"), TimeoutError()])
async def test_an_event_that_gets_lost_harms_nothing(world: World, error: Exception) -> None:
    world.has(a_model())
    world.cluster.refuses("Event", error)
    await world.reconciler.reconcile(GEMMA)


# Several models


async def test_models_do_not_touch_each_other(world: World) -> None:
    world.has(a_model())
    await world.settles()
    world.has(a_model().named("qwen2.5"))
    world.has(a_model().in_namespace("other").with_uid("third"))
    await world.reconciler.reconcile(Key("demo", "qwen2.5"))
    await world.reconciler.reconcile(Key("other", "gemma"))
    world.cluster.forget_writes()
    for key in world.store.keys(MODELS):
        await world.reconciler.reconcile(key)
    assert world.cluster.writes == []
    assert len(world.cluster.keys(DEPLOYMENTS)) == 3


async def test_a_model_that_is_named_as_the_child_of_another_is_told_so(world: World) -> None:
    child = a_model().named("qwen2.5").deployment()["metadata"]["name"]
    world.has(a_model().named("qwen2.5"))
    world.has(a_model().named(child))
    await world.reconciler.reconcile(Key("demo", "qwen2.5"))
    with pytest.raises(RefusedError, match=r"belongs to LlamaModel qwen2\.5"):
        await world.reconciler.reconcile(Key("demo", child))


async def test_models_are_counted_by_phase(world: World) -> None:
    world.has(a_model())
    assert world.reconciler.models_by_phase() == {"Unknown": 1}
    world.has(a_model().named("b").suspended())
    await world.reconciler.reconcile(GEMMA)
    await world.reconciler.reconcile(Key("demo", "b"))
    assert world.reconciler.models_by_phase() == {"Pending": 1, "Suspended": 1}


def _sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)
