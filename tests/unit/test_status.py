"""The status: first what must be mended first, each with a reason and a sentence that says what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.conditions import ConditionType, Reason
from llamamodel_operator.api.guide import guide_link
from llamamodel_operator.api.status import LastFailure, LlamaModelStatus, Phase
from llamamodel_operator.core.checks import CHAIN, Situation, verdict_of
from llamamodel_operator.core.engine.diagnosis import Diagnosis
from llamamodel_operator.core.gguf.model import GgufModel, Part
from llamamodel_operator.core.inspection import Inspection, InspectionState
from llamamodel_operator.core.observed import Observed, Refusal
from llamamodel_operator.core.pod_messages import Trouble
from llamamodel_operator.core.settling import longer_timeout
from llamamodel_operator.core.status import invalid_status, make_status, status_differs
from llamamodel_operator.core.times import format_time, parse_time

from .builders import (
    NOON,
    ClaimBuilder,
    DeploymentBuilder,
    ModelBuilder,
    PodBuilder,
    a_claim,
    a_deployment,
    a_model,
    a_pod,
    at,
    no_claim,
    status_of,
)

LATER = NOON + timedelta(minutes=10)


def condition(status: LlamaModelStatus, kind: str) -> tuple[str, str, str]:
    """(status, reason, message)."""
    (found,) = (c for c in status.conditions if c.type == kind)
    return found.status.value, found.reason, found.message


def ready(status: LlamaModelStatus) -> tuple[str, str]:
    """(reason, message) of the Ready condition, without the section that the message names."""
    _, reason, message = condition(status, "Ready")
    return reason, message.removesuffix(f"; see {guide_link(reason)}")


REFUSED = Refusal(kind="Service", name="gemma", reason=Reason.NOT_OURS, message="Service gemma is not ours")
GPU = a_model().with_gpu(2)

CASES: dict[str, tuple[LlamaModelStatus, Phase, Reason, str]] = {
    "a child that was refused": (
        status_of(a_model(), refusals=[REFUSED]),
        Phase.FAILED, Reason.NOT_OURS, "Service gemma is not ours",
    ),
    "two children that were refused": (
        status_of(a_model(), refusals=[REFUSED, REFUSED]),
        Phase.FAILED, Reason.NOT_OURS, "Service gemma is not ours (1 more object refused)",
    ),
    "a suspended model whose pods are gone": (
        status_of(a_model().suspended()),
        Phase.SUSPENDED, Reason.SUSPENDED, "spec.suspend is true; set it to false to serve the model again",
    ),
    "a suspended model whose pods still stop": (
        status_of(a_model().suspended(), a_pod().terminating(), a_pod().named("b").terminating()),
        Phase.SUSPENDED, Reason.SUSPENDED,
        "spec.suspend is true; set it to false to serve the model again; 2 pods still stopping",
    ),
    "a model with no replicas": (
        status_of(a_model().with_replicas(0)),
        Phase.SUSPENDED, Reason.SCALED_TO_ZERO, "spec.replicas is 0; raise it to serve the model again",
    ),
    "a claim that does not exist": (
        status_of(a_model(), a_pod().unschedulable(), claim=no_claim()),
        Phase.PENDING, Reason.CLAIM_NOT_FOUND,
        "PersistentVolumeClaim models in namespace demo does not exist: create it, or correct spec.model.pvc.claimName",
    ),
    "a claim that lost its volume": (
        status_of(a_model(), claim=a_claim().in_phase("Lost").build()),
        Phase.FAILED, Reason.CLAIM_LOST,
        "PersistentVolumeClaim models in namespace demo has lost its volume: restore the volume or make a new claim",
    ),
    "a claim that is being deleted while a pod starts": (
        status_of(a_model(), a_pod(), claim=a_claim().terminating().build()),
        Phase.PENDING, Reason.CLAIM_TERMINATING,
        "PersistentVolumeClaim models in namespace demo is being deleted, no new pod can use it:"
        " make a new claim once it is gone",
    ),
    "a claim that is being deleted while all pods serve": (
        status_of(
            a_model(), a_pod().ready(), deployment=a_deployment().rolled_out(), claim=a_claim().terminating().build()
        ),
        Phase.READY, Reason.READY, "1 pod serves as gemma at http://gemma.demo.svc:8080",
    ),
    "a claim without a volume and a pod without a node": (
        status_of(a_model(), a_pod().unschedulable("unbound claims."), claim=a_claim().in_phase("Pending").build()),
        Phase.PENDING, Reason.UNSCHEDULABLE,
        "pod gemma-0 fits no node: unbound claims; PersistentVolumeClaim models is Pending",
    ),
    "a claim without a volume": (
        status_of(a_model(), a_pod(), claim=a_claim().in_phase("Pending").build()),
        Phase.PENDING, Reason.CLAIM_PENDING,
        "PersistentVolumeClaim models in namespace demo has no volume yet:"
        " see its events for what its storage class is waiting for",
    ),
    "pods that a quota forbids": (
        status_of(a_model(), deployment=a_deployment().failing_to_create_pods("pods is forbidden: exceeded quota: q")),
        Phase.FAILED, Reason.QUOTA_EXCEEDED, "no pod could be created: pods is forbidden: exceeded quota: q",
    ),
    "pods that pod security forbids": (
        status_of(a_model(), deployment=a_deployment().failing_to_create_pods("violates PodSecurity")),
        Phase.FAILED, Reason.POD_SECURITY_VIOLATION,
        "no pod could be created: violates PodSecurity; correct spec.podSecurityContext, or the level of the"
        " namespace",
    ),
    "pods that are refused without a word": (
        status_of(a_model(), deployment=a_deployment().failing_to_create_pods("")),
        Phase.FAILED, Reason.POD_CREATION_FAILED, "no pod could be created: the API server refuses the pods",
    ),
    "a container that the kubelet cannot make": (
        status_of(a_model(), a_pod().waiting("CreateContainerConfigError", 'secret "s" not found')),
        Phase.FAILED, Reason.CONTAINER_CONFIG_ERROR,
        'the container of pod gemma-0 cannot be created: secret "s" not found',
    ),
    "a crash": (
        status_of(a_model(), a_pod().that_ended(exit_code=1, message="first\nbad file\n").restarted(3)),
        Phase.FAILED, Reason.CRASH_LOOP,
        "llama-server ended with exit code 1: bad file (pod gemma-0, 3 restarts)",
    ),
    "a crash without a word": (
        status_of(a_model(), a_pod().that_ended(exit_code=139, reason="").restarted(2)),
        Phase.FAILED, Reason.CRASH_LOOP,
        "llama-server ended with exit code 139: the container wrote nothing (pod gemma-0, 2 restarts)",
    ),
    "a container killed for its memory": (
        status_of(
            a_model().with_limits(memory="1Gi"), a_pod().that_ended(exit_code=137, reason="OOMKilled").restarted(2)
        ),
        Phase.FAILED, Reason.OUT_OF_MEMORY,
        "killed for going over its memory limit of 1Gi: raise spec.resources.limits.memory"
        " (pod gemma-0, 2 restarts)",
    ),
    "a start that took too long": (
        status_of(
            a_model().with_startup_timeout(60),
            a_pod().that_ended(exit_code=137, started=at("11:00:00"), finished=at("11:01:30")).restarted(2),
        ),
        Phase.FAILED, Reason.STARTUP_TIMEOUT,
        "not ready within 60 s of its start, restarted: raise spec.startupTimeoutSec, to 300 for example"
        " (pod gemma-0, 2 restarts)",
    ),
    "a pod that fits no node": (
        status_of(GPU, a_pod().unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")),
        Phase.PENDING, Reason.UNSCHEDULABLE,
        "pod gemma-0 fits no node: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu;"
        " spec.gpu asks for 2 nvidia.com/gpu per pod: free or add a node with nvidia.com/gpu, or lower spec.gpu.count",
    ),
    "a pod that loads": (
        status_of(a_model().with_startup_timeout(90), a_pod().loading_since(at("12:00:00"))),
        Phase.LOADING, Reason.LOADING, f"pod gemma-0 loads the model, it has until {at('12:01:30')}",
    ),
    "a model without pods": (
        status_of(a_model()),
        Phase.PENDING, Reason.STARTING, "starting: no pod yet, none answers so far",
    ),
    "a pod that is being made": (
        status_of(a_model(), a_pod().waiting("ContainerCreating")),
        Phase.PENDING, Reason.STARTING, "starting: 1 pod, none answers so far",
    ),
    "one pod of two that answers": (
        status_of(
            a_model().with_replicas(2),
            a_pod().ready(),
            a_pod().named("b"),
            deployment=a_deployment().with_counts(updated=2, total=2, ready=1),
        ),
        Phase.UPDATING, Reason.ROLLING_OUT, "1 pod of this spec answers, 2 wanted; 0 pods of an earlier spec",
    ),
    "a pod of the spec before": (
        status_of(
            a_model(),
            a_pod().of_an_earlier_spec().ready(),
        ),
        Phase.UPDATING, Reason.ROLLING_OUT, "0 pods of this spec answer, 1 wanted; 1 pod of an earlier spec",
    ),
    "all pods answer": (
        status_of(
            a_model().with_replicas(2),
            a_pod().ready(),
            a_pod().named("b").ready(),
            deployment=a_deployment().of(a_model().with_replicas(2)).rolled_out(2),
        ),
        Phase.READY, Reason.READY, "2 pods serve as gemma at http://gemma.demo.svc:8080",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_status_says_what_is_the_matter_with(case: str) -> None:
    status, phase, reason, message = CASES[case]
    assert ready(status) == (reason, message)
    assert status.phase is phase


def test_until_when_a_model_has_time_to_load_is_a_field_of_its_own_while_it_loads() -> None:
    model = a_model().with_startup_timeout(90)
    assert status_of(model, a_pod().loading_since(at("12:00:00"))).startup_deadline == at("12:01:30")
    assert status_of(model, a_pod()).startup_deadline is None
    assert status_of(model, a_pod().ready()).startup_deadline is None


@pytest.mark.parametrize(
    ("waiting", "said", "reason", "remedy"),
    [
        ("ErrImagePull", "failed to resolve: x: not found", Reason.IMAGE_NOT_FOUND, "correct spec.image, or push"),
        ("ErrImageNeverPull", "", Reason.IMAGE_NOT_FOUND, "correct spec.image, or push the image"),
        ("InvalidImageName", "", Reason.IMAGE_NOT_FOUND, "correct spec.image, or push the image"),
        ("ImagePullBackOff", "Back-off: 401 Unauthorized", Reason.IMAGE_PULL_DENIED, "spec.imagePullSecrets"),
        ("ErrImagePull", "dial tcp: connection refused", Reason.IMAGE_PULL_FAILED, "spec.imagePullSecrets"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_named(waiting: str, said: str, reason: Reason, remedy: str) -> None:
    status = status_of(a_model(), a_pod().waiting(waiting, said))
    found, message = ready(status)
    assert found == reason
    assert message.startswith(f"image example.com/llama:cpu cannot be pulled: {said or waiting}; ")
    assert remedy in message
    assert status.phase is Phase.FAILED


def test_a_kubelet_that_waits_before_it_pulls_again_does_not_change_the_reason() -> None:
    failed = status_of(a_model(), a_pod().waiting("ErrImagePull", "x: not found"))
    waiting = a_pod().waiting("ImagePullBackOff", 'Back-off pulling image "x"')
    assert condition(status_of(a_model().with_status(failed), waiting), "Ready") == condition(failed, "Ready")
    assert ready(status_of(a_model(), waiting))[0] == Reason.IMAGE_PULL_FAILED, "nothing was known before"
    other = a_model().at_generation(2).with_status(failed)
    assert ready(status_of(other, waiting))[0] == Reason.IMAGE_PULL_FAILED, "that was of another spec"


def test_where_the_operators_image_cannot_be_pulled_it_is_not_the_models_that_is_named() -> None:
    pod = replace(a_pod().waiting("ErrImagePull", "not found").build(), check_waits=True)
    plan = a_model().plan()
    observed = Observed(deployment=None, pods=(replace(pod, revision=plan.revision),))
    found = verdict_of(Situation(model=a_model().build(), plan=plan, observed=observed))
    assert found.reason is Reason.IMAGE_NOT_FOUND
    assert "the image of the operator" in found.message


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made_without_a_word_gives_the_kubelets_reason(reason: str) -> None:
    status = status_of(a_model(), a_pod().waiting(reason))
    assert ready(status) == (
        Reason.CONTAINER_CONFIG_ERROR,
        f"the container of pod gemma-0 cannot be created: {reason}",
    )


def test_one_restart_and_one_refusal_more_are_in_the_singular() -> None:
    once = status_of(a_model(), a_pod().that_ended(message="bad").restarted(1))
    assert ready(once)[1].endswith("(pod gemma-0, 1 restart)")
    assert ready(status_of(a_model(), refusals=[REFUSED, REFUSED]))[1].endswith("(1 more object refused)")


# Priority


def _priorities() -> list[tuple[str, dict[str, Any]]]:
    """What can be wrong all at once, and, layer by layer, what is left when the first of it is mended."""
    broken = a_pod().waiting("ImagePullBackOff").that_ended().unschedulable()
    pods_fail = a_deployment().failing_to_create_pods("no")
    return [
        (Reason.NOT_OURS, {"pods": [broken], "claim": no_claim(), "refusals": [REFUSED], "deployment": pods_fail}),
        (Reason.CLAIM_NOT_FOUND, {"pods": [broken], "claim": no_claim(), "deployment": pods_fail}),
        (Reason.CLAIM_LOST, {"pods": [broken], "claim": a_claim().in_phase("Lost").build(), "deployment": pods_fail}),
        (Reason.POD_CREATION_FAILED, {"pods": [broken], "deployment": pods_fail}),
        (Reason.IMAGE_PULL_FAILED, {"pods": [broken]}),
        (
            Reason.CONTAINER_CONFIG_ERROR,
            {"pods": [a_pod().waiting("CreateContainerError").that_ended().unschedulable()]},
        ),
        (Reason.CRASH_LOOP, {"pods": [a_pod().unschedulable(), a_pod().named("b").that_ended()]}),
        (
            Reason.UNSCHEDULABLE,
            {"pods": [a_pod().loading_since(at("12:00:00")), a_pod().named("b").unschedulable()],
             "claim": a_claim().in_phase("Pending").build()},
        ),
        (
            Reason.CLAIM_PENDING,
            {"pods": [a_pod().loading_since(at("12:00:00"))], "claim": a_claim().in_phase("Pending").build()},
        ),
        (Reason.LOADING, {"pods": [a_pod(), a_pod().named("b").loading_since(at("12:00:00"))]}),
        (Reason.STARTING, {"pods": [a_pod()]}),
    ]  # fmt: skip


@pytest.mark.parametrize(("reason", "world"), _priorities())
def test_what_must_be_mended_first_is_said_first(reason: str, world: dict[str, Any]) -> None:
    pods = world.pop("pods")
    assert ready(status_of(a_model(), *pods, **world))[0] == reason


def test_a_suspended_model_is_suspended_whatever_else_is_wrong() -> None:
    status = status_of(a_model().suspended(), a_pod().that_ended(), claim=no_claim())
    assert ready(status)[0] == Reason.SUSPENDED
    assert ready(status_of(a_model().suspended(), refusals=[REFUSED]))[0] == Reason.NOT_OURS


def test_the_chain_ends_with_a_check_that_always_speaks() -> None:
    assert CHAIN[-1].__name__ == "all_is_well"


def test_a_pod_that_goes_says_nothing_about_the_model() -> None:
    going = a_pod().waiting("ImagePullBackOff").that_ended().unschedulable().terminating()
    assert ready(status_of(a_model(), going, a_pod().named("b").loading_since(at("12:00:00"))))[0] == Reason.LOADING


def test_a_ready_pod_that_crashed_once_is_ready() -> None:
    status = status_of(a_model(), a_pod().that_ended().ready(), deployment=a_deployment().rolled_out())
    assert ready(status)[0] == Reason.READY


def test_a_server_that_has_loaded_and_accepts_no_connections_yet_is_not_called_a_crash() -> None:
    status = status_of(a_model(), a_pod().that_ended().started_but_unready())
    assert ready(status) == (
        Reason.LOADING,
        "the model is loaded, waiting for the first successful readiness probe",
    )
    assert status.phase is Phase.LOADING


def test_a_pod_that_fits_no_node_while_another_still_stops_waits_for_its_room() -> None:
    status = status_of(GPU, a_pod().unschedulable(), a_pod().named("old").terminating())
    assert ready(status)[0] == Reason.STARTING
    assert ready(status)[1].startswith(
        "pod gemma-0 waits for the room of what is still being deleted, old (on node none): 0/3 nodes are available"
    )


def test_a_new_pod_that_loads_while_an_old_one_answers_is_an_update() -> None:
    status = status_of(a_model(), a_pod().ready(), a_pod().named("new").loading_since(at("12:00:00")))
    assert ready(status)[0] == Reason.LOADING
    assert status.phase is Phase.UPDATING


# Conditions


def test_all_is_well_reads_as_one_condition_of_each_type() -> None:
    status = status_of(a_model(), a_pod().ready(), deployment=a_deployment().rolled_out())
    assert [c.type for c in status.conditions] == list(ConditionType)
    assert condition(status, "Accepted") == ("True", "Accepted", "the spec is valid and all objects exist")
    assert condition(status, "Available")[:2] == ("True", "PodsAvailable")
    assert condition(status, "Progressing") == ("False", "RolloutComplete", "all pods run this spec")
    assert condition(status, "Ready")[:2] == ("True", "Ready")


def test_an_old_pod_that_answers_keeps_the_model_available_while_the_new_one_fails() -> None:
    status = status_of(a_model(), a_pod().ready(), a_pod().named("new").that_ended(message="bad flag"))
    assert condition(status, "Available")[:2] == ("True", "PodsAvailable")
    assert condition(status, "Ready")[:2] == ("False", "CrashLoop")
    assert status.phase is Phase.FAILED
    assert (status.replicas, status.ready_replicas) == (2, 1)


def test_a_refusal_is_not_accepted_and_everything_else_is() -> None:
    assert condition(status_of(a_model(), refusals=[REFUSED]), "Accepted")[:2] == ("False", "NotOurs")
    assert condition(status_of(a_model(), a_pod().that_ended()), "Accepted")[0] == "True"


@pytest.mark.parametrize(
    ("status", "moving"),
    [
        (status_of(a_model()), "True"),
        (status_of(a_model(), a_pod().loading_since(at("12:00:00"))), "True"),
        (status_of(a_model(), claim=a_claim().in_phase("Pending").build()), "True"),
        (status_of(a_model().suspended(), a_pod().terminating()), "True"),
        (status_of(a_model().suspended()), "False"),
        (status_of(a_model(), claim=no_claim()), "False"),
        (status_of(a_model(), a_pod().unschedulable()), "False"),
        (status_of(a_model(), a_pod().waiting("ErrImagePull")), "False"),
        (status_of(a_model(), a_pod().that_ended()), "False"),
    ],
)
def test_progressing_is_true_while_things_get_further_on_their_own(status: LlamaModelStatus, moving: str) -> None:
    assert condition(status, "Progressing")[0] == moving
    assert condition(status, "Progressing")[1:] == condition(status, "Ready")[1:]


@pytest.mark.parametrize(
    "pods",
    [
        [],
        [a_pod()],
        [a_pod().of_an_earlier_spec().ready()],
        [a_pod().ready(), a_pod().named("old").of_an_earlier_spec().ready()],
        [a_pod().ready().terminating()],
    ],
)
def test_ready_needs_every_pod_to_run_this_spec_and_no_other_to_be_left(pods: list[PodBuilder]) -> None:
    assert condition(status_of(a_model(), *pods), "Ready")[0] == "False"


def test_ready_waits_for_no_count_of_the_deployment_controller_but_for_its_having_seen_the_spec() -> None:
    uncounted = a_deployment().with_counts(updated=0, total=1, ready=0)
    assert condition(status_of(a_model(), a_pod().ready(), deployment=uncounted), "Ready")[0] == "True"
    behind = a_deployment().with_counts(updated=1, total=1, ready=1, seen_generation=0)
    assert condition(status_of(a_model(), a_pod().ready(), deployment=behind), "Ready")[0] == "False"


def test_a_pod_whose_node_is_gone_is_not_called_a_pod_that_loads() -> None:
    lost = {"type": "Ready", "status": "False", "lastTransitionTime": at("11:30:00"), "message": "node lost"}
    pod = replace(a_pod().started_but_unready(at("11:00:00")), conditions=(lost,), node="node-7")
    status = status_of(a_model(), pod)
    assert ready(status) == (
        Reason.POD_NOT_READY,
        "pod gemma-0 on node node-7 runs but is not ready: node lost; see `kubectl describe pod gemma-0`",
    )
    assert condition(status, "Progressing")[0] == "False"


def a_pod_whose_sidecar_is_unready(since: str) -> PodBuilder:
    message = "containers with unready status: [proxy]"
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": at(since), "message": message}
    return replace(a_pod().started_but_unready(at("11:00:00"))._container(ready=True), conditions=(unready,))


def test_a_sidecar_that_starts_slower_than_the_model_is_awaited_by_name() -> None:
    status = status_of(a_model(), a_pod_whose_sidecar_is_unready(since="10:59:00"))
    assert ready(status) == (
        Reason.LOADING,
        "the model is loaded, pod gemma-0 is not ready yet: containers with unready status: [proxy]",
    )
    assert status.phase is Phase.LOADING
    assert condition(status, "Progressing")[0] == "True"


def test_a_sidecar_that_was_ready_and_is_not_any_more_is_a_failure() -> None:
    status = status_of(a_model(), a_pod_whose_sidecar_is_unready(since="11:30:00"))
    assert ready(status)[0] == Reason.POD_NOT_READY
    assert "containers with unready status: [proxy]" in ready(status)[1]
    assert status.phase is Phase.FAILED


def test_a_sidecar_that_is_not_ready_before_the_deadline_of_the_rollout_is_a_failure_and_named() -> None:
    deployment = a_deployment().rolled_out()
    given_up = {"type": "Progressing", "status": "False", "message": "has timed out progressing."}
    deployment = replace(deployment, status={**deployment.status, "conditions": [given_up]})
    status = status_of(a_model(), a_pod_whose_sidecar_is_unready(since="10:59:00"), deployment=deployment)
    assert ready(status)[0] == Reason.POD_NOT_READY
    assert "[proxy]" in ready(status)[1]


def test_a_rollout_that_the_controller_gave_up_is_not_called_starting() -> None:
    deployment = a_deployment().rolled_out()
    given_up = {"type": "Progressing", "status": "False", "message": "has timed out progressing."}
    deployment = replace(deployment, status={**deployment.status, "conditions": [given_up]})
    status = status_of(a_model(), a_pod().waiting("ContainerCreating"), deployment=deployment)
    assert ready(status)[0] == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert "kubectl describe pod gemma-0" in ready(status)[1]
    assert status.phase is Phase.FAILED


def test_no_endpoint_is_named_where_the_service_is_somebody_elses() -> None:
    assert status_of(a_model(), refusals=[REFUSED]).endpoint is None


def test_a_pod_more_than_wanted_is_not_ready_yet() -> None:
    status = status_of(
        a_model(),
        a_pod().ready(),
        a_pod().named("b").ready(),
        deployment=a_deployment().with_counts(updated=2, total=2, ready=2),
    )
    assert ready(status)[0] == Reason.ROLLING_OUT


def test_pods_that_are_too_many_are_called_so() -> None:
    status = status_of(a_model(), a_pod().ready(), a_pod().named("b").ready())
    assert "2 of 1" not in ready(status)[1]


def test_the_status_names_generation_address_image_command_and_selector() -> None:
    status = status_of(
        a_model().named("qwen2.5").at_generation(7).with_spec(servedModelName="q"), a_pod().terminating()
    )
    assert status.observed_generation == 7
    assert {c.observed_generation for c in status.conditions} == {7}
    assert status.endpoint is not None
    assert re.fullmatch(r"http://qwen2-5-[0-9a-f]{8}\.demo\.svc:8080", status.endpoint)
    assert status.served_model_name == "q"
    assert status.engine is not None
    assert status.engine.image == "example.com/llama:cpu"
    assert status.command is not None
    assert status.command[:2] == ["llama-server", "--model"]
    assert status.selector is not None
    assert status.selector.startswith("llamamodel.dev/model=qwen2-5-")
    assert (status.replicas, status.ready_replicas) == (0, 0)


def test_without_a_deployment_nothing_has_rolled_out() -> None:
    model = a_model()
    observed = Observed(deployment=None, claim=a_claim().build())
    status = make_status(model.build(), plan=model.plan(), observed=observed, now=NOON)
    assert ready(status)[0] == Reason.STARTING


def test_a_claim_that_may_not_be_read_is_not_called_missing() -> None:
    model = a_model()
    status = make_status(model.build(), plan=model.plan(), observed=Observed(deployment=None), now=NOON)
    assert ready(status)[0] == Reason.STARTING


# Time


@pytest.mark.parametrize("case", CASES)
def test_nothing_in_a_status_ticks(case: str) -> None:
    before = CASES[case][0]
    model = a_model().with_status(before)
    first = status_of(model, a_pod().loading_since(at("11:59:00")), now=NOON)
    again = status_of(model.with_status(first), a_pod().loading_since(at("11:59:00")), now=LATER)
    assert again == first
    assert not status_differs(again.to_wire(), first.to_wire())


def test_a_condition_that_keeps_its_status_keeps_its_time_even_for_another_reason() -> None:
    first = status_of(a_model(), a_pod().loading_since(at("12:00:00")), now=NOON)
    second = status_of(a_model().with_status(first), a_pod().that_ended(), now=LATER)
    times = {c.type: c.last_transition_time for c in second.conditions}
    assert times == {
        "Accepted": at("12:00:00"),
        "Inspected": at("12:00:00"),
        "MemoryFits": at("12:00:00"),
        "Available": at("12:00:00"),
        "Progressing": at("12:10:00"),  # True while loading, False once it crashed
        "Offloaded": at("12:00:00"),
        "Ready": at("12:00:00"),
    }


def test_a_condition_that_changes_its_status_changes_its_time() -> None:
    first = status_of(a_model(), now=NOON)
    second = status_of(a_model().with_status(first), a_pod().ready(), deployment=a_deployment().rolled_out(), now=LATER)
    times = {c.type: c.last_transition_time for c in second.conditions}
    assert times["Ready"] == times["Available"] == times["Progressing"] == at("12:10:00")
    assert times["Accepted"] == at("12:00:00")


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_time_is_written_as_kubernetes_does_and_read_back(moment: datetime) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", format_time(moment))
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    assert format_time(datetime.fromisoformat("2026-01-01T14:00:00+02:00")) == at("12:00:00")


# The last failure


def failure(status: LlamaModelStatus) -> tuple[str, str, int, str] | None:
    found = status.last_failure
    return (found.reason, found.message, found.exit_code, found.time) if found else None


def test_a_failure_is_kept_when_the_pod_that_had_it_is_gone() -> None:
    crashed = status_of(a_model(), a_pod().that_ended(exit_code=3, message="line\nbad file"))
    expected = ("CrashLoop", "llama-server ended with exit code 3: bad file", 3, at("11:00:05"))
    assert failure(crashed) == expected
    assert failure(status_of(a_model().with_status(crashed))) == expected


def test_the_failure_of_a_generation_that_is_over_is_not_kept() -> None:
    crashed = status_of(a_model(), a_pod().that_ended())
    assert failure(status_of(a_model().at_generation(2).with_status(crashed))) is None


def test_the_failure_of_the_spec_before_does_not_stick_to_the_spec_that_mended_it() -> None:
    crashed = status_of(a_model(), a_pod().named("old").that_ended())
    mended, old = a_model().at_generation(2), a_pod().named("old").of_an_earlier_spec().that_ended()
    right_after = status_of(mended.with_status(crashed), old, now=NOON)
    assert ready(right_after)[0] == Reason.STARTING, "what ails the old pod is mended"
    serving = status_of(mended.with_status(right_after), a_pod().named("new").ready(), now=LATER)
    assert ready(serving)[0] == Reason.READY
    assert failure(serving) is None


def test_of_several_failures_the_latest_counts() -> None:
    status = status_of(
        a_model(),
        a_pod().named("a").that_ended(exit_code=1, finished=at("11:20:00")),
        a_pod().named("b").that_ended(exit_code=2, finished=at("11:30:00")),
        a_pod().named("c").that_ended(exit_code=3, finished=at("11:10:00")),
    )
    assert status.last_failure is not None
    assert status.last_failure.exit_code == 2


def test_a_pod_that_was_told_to_stop_has_not_failed() -> None:
    assert failure(status_of(a_model(), a_pod().that_ended(exit_code=143).terminating())) is None


def test_a_long_last_message_is_cut_to_its_end() -> None:
    message = "\n".join(f"line {number} " + "x" * 300 for number in range(50)) + "\nthe reason"
    status = status_of(a_model(), a_pod().that_ended(message=message))
    assert status.last_failure is not None
    assert status.last_failure.last_lines is not None
    assert len(status.last_failure.last_lines) <= 1024
    assert status.last_failure.last_lines.endswith("\nthe reason")


def test_a_failure_whose_cause_is_known_has_its_line_and_what_to_do_and_no_other_lines() -> None:
    log = "0.00.001 I chatter\nerror: invalid argument: --flash-atten\n"
    status = status_of(a_model(), a_pod().that_ended(exit_code=1, message=log).restarted(3))
    assert status.last_failure == LastFailure(
        reason="InvalidArgument",
        message="this build of llama-server refuses an argument",
        line="error: invalid argument: --flash-atten",
        remedy="correct the field or the word of spec.extraArgs that it comes from; `llamamodel validate` checks"
        " arguments beforehand",
        exit_code=1,
        time=at("11:00:05"),
    )
    reason, message = ready(status)
    assert reason == Reason.INVALID_ARGUMENT
    assert message.startswith(
        'this build of llama-server refuses an argument ("error: invalid argument: --flash-atten"'
    )
    assert message.endswith("(pod gemma-0, 3 restarts)")


def test_what_the_whole_log_told_wins_over_the_end_of_it() -> None:
    known = Diagnosis(reason=Reason.OUT_OF_GPU_MEMORY, message="no memory", line="cudaMalloc failed", remedy="less")
    pod = a_pod().that_ended(exit_code=1, message="#12 0x00 in ?? ()").of_revision(a_model().plan().revision).build()
    observed = Observed(deployment=a_deployment().raw(), pods=(pod,), diagnoses={pod.name: known})
    status = make_status(a_model().build(), plan=a_model().plan(), observed=observed, now=NOON)
    assert ready(status) == (
        Reason.OUT_OF_GPU_MEMORY,
        'no memory ("cudaMalloc failed"): less (pod gemma-0, 0 restarts)',
    )


def test_a_container_that_the_driver_does_not_let_start_says_so() -> None:
    said = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver"
    status = status_of(GPU, a_pod().waiting("RunContainerError", f"failed to create shim task: {said}"))
    reason, message = ready(status)
    assert reason == Reason.GPU_DRIVER_MISMATCH
    assert said in message
    assert "spec.nodeSelector" in message


def test_a_pod_whose_volume_is_elsewhere_says_so() -> None:
    trouble = Trouble(reason=Reason.MULTI_ATTACH, message="Multi-Attach error for volume v", remedy="stop the other")
    pod = a_pod().waiting("ContainerCreating").of_revision(a_model().plan().revision).build()
    observed = Observed(deployment=a_deployment().raw(), pods=(pod,), troubles={pod.name: trouble})
    status = make_status(a_model().build(), plan=a_model().plan(), observed=observed, now=NOON)
    assert ready(status) == (
        Reason.MULTI_ATTACH,
        "pod gemma-0 cannot start its containers: Multi-Attach error for volume v; stop the other",
    )


def test_the_message_of_what_somebody_must_mend_ends_with_its_section() -> None:
    crashed = status_of(a_model(), a_pod().that_ended(message="bad"))
    assert condition(crashed, "Ready")[2].endswith("; see docs/troubleshooting.md#crashloop")
    assert "see docs/" not in condition(status_of(a_model()), "Ready")[2], "it gets further by itself"


@pytest.mark.parametrize(
    ("exit_code", "seconds", "reason"),
    [
        (137, 300, Reason.STARTUP_TIMEOUT),
        (143, 310, Reason.STARTUP_TIMEOUT),
        (0, 303, Reason.STARTUP_TIMEOUT),
        (137, 200, Reason.CRASH_LOOP),
        (1, 300, Reason.CRASH_LOOP),
        (134, 300, Reason.CRASH_LOOP),
    ],
)
def test_a_server_that_was_stopped_after_the_startup_timeout_was_too_slow(
    exit_code: int, seconds: int, reason: Reason
) -> None:
    ended = (parse_time(at("11:00:00")) + timedelta(seconds=seconds)).strftime("%H:%M:%S")
    status = status_of(a_model(), a_pod().that_ended(exit_code=exit_code, finished=at(ended)))
    assert ready(status)[0] == reason


def test_a_server_that_served_for_hours_before_it_was_killed_was_not_too_slow() -> None:
    status = status_of(a_model(), a_pod().that_ended(exit_code=137, started=at("01:00:00"), finished=at("11:00:00")))
    assert ready(status)[0] == Reason.CRASH_LOOP


def test_a_server_that_ended_at_once_was_not_too_slow_for_a_short_timeout() -> None:
    model = a_model().with_startup_timeout(2)
    status = status_of(model, a_pod().that_ended(exit_code=0, started=at("11:00:00"), finished=at("11:00:00")))
    assert ready(status)[0] == Reason.CRASH_LOOP


def test_memory_is_the_reason_whatever_the_time() -> None:
    status = status_of(a_model(), a_pod().that_ended(exit_code=137, reason="OOMKilled", finished=at("11:30:00")))
    assert ready(status) == (
        Reason.OUT_OF_MEMORY,
        "killed for going over its memory limit: raise spec.resources.limits.memory (pod gemma-0, 0 restarts)",
    )


def test_an_end_without_times_makes_a_status_that_the_api_server_takes() -> None:
    status = status_of(
        a_model(), a_pod().that_ended(exit_code=137, reason="ContainerStatusUnknown", started="", finished="")
    )
    assert status.last_failure is None or parse_time(status.last_failure.time)


@pytest.mark.parametrize(
    "stored", [{"reason": "CrashLoop"}, {"reason": "X", "message": "", "exitCode": "a", "time": ""}]
)
def test_a_stored_failure_of_another_form_is_dropped(stored: dict[str, Any]) -> None:
    before = {"observedGeneration": 1, "lastFailure": stored}
    assert failure(status_of(a_model().with_status(before))) is None


def test_a_message_longer_than_a_condition_may_hold_is_cut() -> None:
    refusal = Refusal(kind="Deployment", name="gemma", reason=Reason.OBJECT_REFUSED, message="x" * 40_000)
    assert ready(status_of(a_model(), refusals=[refusal]))[0] == Reason.OBJECT_REFUSED


# An invalid spec


def test_an_invalid_spec_is_said_in_every_condition_and_what_runs_is_left_alone() -> None:
    before = status_of(a_model(), a_pod().ready(), deployment=a_deployment().rolled_out()).to_wire()
    status = invalid_status(generation=2, message="spec.replicas: …", before=before, now=LATER)
    assert {c.type: c.status.value for c in status.conditions} == {
        "Accepted": "False",
        "Inspected": "Unknown",
        "MemoryFits": "Unknown",
        "Available": "Unknown",
        "Progressing": "False",
        "Offloaded": "Unknown",
        "Ready": "False",
    }
    assert {(c.reason, c.message) for c in status.conditions} == {("InvalidSpec", "spec.replicas: …")}
    assert (status.observed_generation, status.replicas, status.ready_replicas) == (2, 1, 1)
    assert status.selector == before["selector"]
    assert status.phase is Phase.FAILED


def test_an_invalid_spec_does_not_hide_the_address_of_what_still_serves() -> None:
    before = status_of(a_model(), a_pod().ready(), deployment=a_deployment().rolled_out()).to_wire()
    status = invalid_status(generation=2, message="spec.replicas: …", before=before, now=LATER).to_wire()
    for field in ("endpoint", "servedModelName", "engine"):
        assert status[field] == before[field]


def test_an_invalid_spec_is_said_the_same_way_again() -> None:
    first = invalid_status(generation=2, message="m", before={}, now=NOON)
    again = invalid_status(generation=2, message="m", before=first.to_wire(), now=LATER)
    assert again == first


# Whether to write


def test_a_status_is_written_the_first_time() -> None:
    assert status_differs(status_of(a_model()).to_wire(), {})


def test_a_foreign_condition_is_no_reason_to_write() -> None:
    ours = status_of(a_model()).to_wire()
    theirs = {"type": "gateway.example.com/Routed", "status": "True"}
    assert not status_differs(ours, {**ours, "conditions": [theirs, *ours["conditions"]]})


def test_a_foreign_field_is_no_reason_to_write() -> None:
    ours = status_of(a_model()).to_wire()
    assert not status_differs(ours, {**ours, "foreign": 1})


def test_a_condition_of_ours_that_is_missing_or_changed_is_written() -> None:
    ours = status_of(a_model()).to_wire()
    first, *rest = ours["conditions"]
    assert status_differs(ours, {**ours, "conditions": rest})
    assert status_differs(ours, {**ours, "conditions": [{**first, "message": "?"}, *rest]})


@pytest.mark.parametrize(
    "field", ["phase", "endpoint", "replicas", "command", "selector", "observedGeneration", "engine"]
)
def test_a_field_of_ours_that_is_missing_or_changed_is_written(field: str) -> None:
    ours = status_of(a_model()).to_wire()
    assert status_differs(ours, {key: value for key, value in ours.items() if key != field})
    assert status_differs(ours, {**ours, field: "other"})


def test_a_field_of_ours_that_should_go_is_written() -> None:
    crashed = status_of(a_model(), a_pod().that_ended()).to_wire()
    assert status_differs(status_of(a_model().at_generation(1)).to_wire(), crashed)


# Anything that can be


_PODS = st.lists(
    st.sampled_from(
        [
            a_pod(),
            a_pod().unschedulable(),
            a_pod().waiting("ErrImagePull"),
            a_pod().waiting("CrashLoopBackOff").that_ended(),
            a_pod().loading_since(at("12:00:00")),
            a_pod().started_but_unready(),
            a_pod().ready(),
            a_pod().ready().terminating(),
            a_pod().that_ended(exit_code=137, reason="OOMKilled").terminating(),
        ]
    ),
    max_size=3,
)
_MODELS = st.sampled_from([a_model(), a_model().suspended(), a_model().with_replicas(2), GPU, a_model().named("7b")])
_CLAIMS = st.sampled_from(
    [a_claim(), a_claim().in_phase("Lost"), a_claim().in_phase("Pending"), a_claim().terminating()]
)
_DEPLOYMENTS = st.builds(
    lambda updated, total, count: a_deployment().with_counts(updated=updated, total=total, ready=count),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
)


@given(_MODELS, _PODS, _CLAIMS, _DEPLOYMENTS)
def test_whatever_is_observed_the_status_is_whole_and_does_not_contradict_itself(
    model: ModelBuilder, pods: list[PodBuilder], claim: ClaimBuilder, deployment: DeploymentBuilder
) -> None:
    named = [pod.named(f"p{number}") for number, pod in enumerate(pods)]
    status = status_of(model, *named, claim=claim.build(), deployment=deployment)
    assert [c.type for c in status.conditions] == list(ConditionType)
    assert all(c.message and re.fullmatch(r"[A-Z][A-Za-z]+", c.reason) for c in status.conditions)
    is_ready = condition(status, "Ready")[0] == "True"
    assert is_ready == (status.phase is Phase.READY)
    assert (condition(status, "Available")[0] == "True") == (status.ready_replicas > 0)
    assert not is_ready or status.ready_replicas == model.build().spec.wanted_replicas > 0
    assert LlamaModelStatus.model_validate(status.to_wire()) == status
    again = status_of(model.with_status(status), *named, claim=claim.build(), deployment=deployment, now=LATER)
    assert not status_differs(again.to_wire(), status.to_wire())


@pytest.mark.parametrize(
    ("tried", "size_bytes", "seconds"),
    [(60, 0, 300), (300, 0, 600), (300, 40_000_000_000, 920), (2000, 40_000_000_000, 4000)],
)
def test_a_longer_startup_timeout_is_suggested_by_the_size_of_the_files(
    tried: int, size_bytes: int, seconds: int
) -> None:
    part = Part(name="a.gguf", size=size_bytes, header_size=0, header_digest="")
    model = GgufModel(parts=(part,), metadata={}, lengths={}, tensors=())
    inspection = Inspection(state=InspectionState.DONE, reason=Reason.INSPECTED, message="", model=model)
    assert longer_timeout(tried, inspection) == seconds
    assert longer_timeout(tried, None) == max(2 * tried, 300)
