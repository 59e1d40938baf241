"""From what was observed to the status: an ordered chain of small checks, the first that speaks wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from llamamodel_operator.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    carry_transition_times,
)
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.status import EngineStatus, LastFailure, LlamaModelStatus, Phase
from llamamodel_operator.core.objects.names import selector
from llamamodel_operator.core.observed import Observed, Pod, Termination
from llamamodel_operator.core.plan import Plan

__all__ = ["invalid_status", "make_status", "status_differs"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Where a LlamaModel stands.

    Attributes:
        moving: whether it gets further without anybody doing anything.
    """

    reason: Reason
    message: str
    phase: Phase
    moving: bool = False


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that a check may look at."""

    model: LlamaModel
    plan: Plan
    observed: Observed

    @property
    def wanted(self) -> int:
        return self.model.spec.wanted_replicas

    @property
    def unready_pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.observed.pods if not pod.ready and not pod.terminating)

    @property
    def ready_count(self) -> int:
        return sum(pod.ready for pod in self.observed.pods)


Check: TypeAlias = Callable[[Situation], Verdict | None]


def refused(now: Situation) -> Verdict | None:
    """A child could not be written: nothing else matters until it can."""
    if not now.observed.refusals:
        return None
    first, *rest = now.observed.refusals
    more = f" ({len(rest)} more objects were refused)" if rest else ""
    return Verdict(reason=first.reason, message=first.message + more, phase=Phase.FAILED)


def suspended(now: Situation) -> Verdict | None:
    """Nothing should run."""
    if now.wanted:
        return None
    left = len(now.observed.pods)
    if now.model.spec.suspend:
        why, what_to_do = Reason.SUSPENDED, "spec.suspend is true; set it to false to serve the model again"
    else:
        why, what_to_do = Reason.SCALED_TO_ZERO, "spec.replicas is 0; raise it to serve the model again"
    stopping = f"; {_pods(left)} still stopping" if left else ""
    return Verdict(reason=why, message=what_to_do + stopping, phase=Phase.SUSPENDED, moving=bool(left))


def claim_unusable(now: Situation) -> Verdict | None:
    """No pod can start while the claim with the model is not there."""
    claim = now.observed.claim
    if claim is None or (claim.phase == "Bound" and not claim.terminating):
        return None
    where = f"PersistentVolumeClaim {claim.name} in namespace {now.model.namespace}"
    if not claim.phase:
        return Verdict(
            reason=Reason.CLAIM_NOT_FOUND,
            message=f"{where} does not exist: create it, or correct spec.model.pvc.claimName",
            phase=Phase.PENDING,
        )
    if claim.phase == "Lost":
        return Verdict(
            reason=Reason.CLAIM_LOST,
            message=f"{where} has lost its volume: restore the volume or make a new claim",
            phase=Phase.FAILED,
        )
    if claim.terminating and now.unready_pods:
        return Verdict(
            reason=Reason.CLAIM_TERMINATING,
            message=f"{where} is being deleted, no new pod can use it: make a new claim once it is gone",
            phase=Phase.PENDING,
        )
    return None


def pods_not_created(now: Situation) -> Verdict | None:
    """The Deployment exists, but its pods are refused: a quota, pod security, an admission webhook."""
    failure = _deployment_condition(now.observed.deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    message = failure.get("message") or "the API server refuses the pods"
    quota = "exceeded quota" in message
    return Verdict(
        reason=Reason.QUOTA_EXCEEDED if quota else Reason.POD_CREATION_FAILED,
        message=f"no pod could be created: {message}",
        phase=Phase.FAILED,
    )


_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def image_not_pulled(now: Situation) -> Verdict | None:
    """The image does not exist, or may not be pulled."""
    for pod in now.unready_pods:
        if pod.waiting_reason in _IMAGE_REASONS:
            return Verdict(
                reason=Reason.IMAGE_PULL_FAILED,
                message=f"image {now.plan.image} cannot be pulled: {pod.waiting_message or pod.waiting_reason};"
                " check spec.image and spec.imagePullSecrets",
                phase=Phase.FAILED,
            )
    return None


def container_not_created(now: Situation) -> Verdict | None:
    """The kubelet cannot make the container: a missing Secret or ConfigMap in env, a UID that is refused."""
    for pod in now.unready_pods:
        if pod.waiting_reason in _CONFIG_REASONS:
            return Verdict(
                reason=Reason.CONTAINER_CONFIG_ERROR,
                message=f"the container of pod {pod.name} cannot be created: "
                f"{pod.waiting_message or pod.waiting_reason}",
                phase=Phase.FAILED,
            )
    return None


def container_keeps_ending(now: Situation) -> Verdict | None:
    """The container was started and ended before it could answer."""
    for pod in now.unready_pods:
        ended = pod.last_termination
        if ended is None or pod.started:
            continue
        reason = _failure_reason(ended, startup_timeout_sec=now.model.spec.settled_startup_timeout_sec)
        return Verdict(
            reason=reason,
            message=f"{_failure_sentence(reason, ended, now.model)} (pod {pod.name}, restarted {pod.restarts} times)",
            phase=Phase.FAILED,
        )
    return None


def unschedulable(now: Situation) -> Verdict | None:
    """No node has room for a pod."""
    for pod in now.unready_pods:
        if pod.unschedulable:
            gpu = now.model.spec.gpu
            hint = f"; spec.gpu asks for {gpu.count} {gpu.resource_name} per pod" if gpu else ""
            claim = now.observed.claim
            if claim is not None and claim.phase == "Pending":
                hint += f"; PersistentVolumeClaim {claim.name} is Pending"
            return Verdict(
                reason=Reason.UNSCHEDULABLE,
                message=f"pod {pod.name} fits no node: {pod.unschedulable.rstrip('.')}{hint}",
                phase=Phase.PENDING,
            )
    return None


def claim_pending(now: Situation) -> Verdict | None:
    """The claim waits for its volume; normal for a moment where volumes are bound to the first consumer."""
    claim = now.observed.claim
    if claim is None or claim.phase != "Pending":
        return None
    return Verdict(
        reason=Reason.CLAIM_PENDING,
        message=f"PersistentVolumeClaim {claim.name} in namespace {now.model.namespace} has no volume yet:"
        " see its events for what its storage class is waiting for",
        phase=Phase.PENDING,
        moving=True,
    )


def loading(now: Situation) -> Verdict | None:
    """A server is up and reads its model."""
    for pod in now.unready_pods:
        if pod.running_since and not pod.started:
            timeout = timedelta(seconds=now.model.spec.settled_startup_timeout_sec)
            deadline = format_time(parse_time(pod.running_since) + timeout)
            return Verdict(
                reason=Reason.LOADING,
                message=f"pod {pod.name} loads the model, it has until {deadline}",
                phase=Phase.LOADING,
                moving=True,
            )
    return None


def rollout_unfinished(now: Situation) -> Verdict | None:
    """Fewer pods of this spec answer than wanted, or pods of an earlier spec are still there."""
    deployment = now.observed.deployment or {}
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 1)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    if seen and now.ready_count == updated == total == now.wanted == status.get("readyReplicas", 0):
        return None
    if now.ready_count == 0:
        pods = _pods(len(now.unready_pods)) if now.unready_pods else "no pod yet"
        return Verdict(
            reason=Reason.STARTING,
            message=f"starting: {pods}, none answers so far",
            phase=Phase.PENDING,
            moving=True,
        )
    return Verdict(
        reason=Reason.ROLLING_OUT,
        message=f"{now.ready_count} of {_pods(now.wanted)} answer{'s' if now.wanted == 1 else ''},"
        f" {updated if seen else 0} of this spec",
        phase=Phase.UPDATING,
        moving=True,
    )


def all_is_well(now: Situation) -> Verdict:
    """The end of the chain."""
    served = f"as {now.model.served_name} at {now.plan.endpoint}"
    return Verdict(reason=Reason.READY, message=f"{_pods(now.wanted)} serve {served}", phase=Phase.READY)


CHAIN: Sequence[Check] = (
    refused,
    suspended,
    claim_unusable,
    pods_not_created,
    image_not_pulled,
    container_not_created,
    container_keeps_ending,
    unschedulable,
    claim_pending,
    loading,
    rollout_unfinished,
    all_is_well,
)
"""Order is priority: what must be mended first is said first."""


def make_status(model: LlamaModel, *, plan: Plan, observed: Observed, now: datetime) -> LlamaModelStatus:
    """The status of a LlamaModel whose spec is valid. Pure; `now` only dates conditions that change."""
    situation = Situation(model=model, plan=plan, observed=observed)
    verdict = next(found for check in CHAIN if (found := check(situation)) is not None)
    conditions = _conditions(situation, verdict, format_time(now))
    return LlamaModelStatus(
        observed_generation=model.generation,
        phase=verdict.phase,
        replicas=sum(not pod.terminating for pod in observed.pods),
        ready_replicas=situation.ready_count,
        selector=",".join(f"{key}={value}" for key, value in selector(plan.name).items()),
        endpoint=plan.endpoint,
        served_model_name=model.served_name,
        engine=EngineStatus(image=plan.image),
        command=list(plan.command),
        conditions=list(carry_transition_times(conditions, before=model.status.get("conditions") or [])),
        last_failure=_last_failure(situation),
    )


def invalid_status(*, generation: int, message: str, before: Mapping[str, Any], now: datetime) -> LlamaModelStatus:
    """The status of a stored LlamaModel that the types refuse; what runs is left as it is."""
    conditions = [
        Condition(
            type=kind,
            status=ConditionStatus.UNKNOWN if kind is ConditionType.AVAILABLE else ConditionStatus.FALSE,
            reason=Reason.INVALID_SPEC,
            message=message,
            last_transition_time=format_time(now),
            observed_generation=generation,
        )
        for kind in ConditionType
    ]
    return LlamaModelStatus(
        observed_generation=generation,
        phase=Phase.FAILED,
        replicas=before.get("replicas", 0),
        ready_replicas=before.get("readyReplicas", 0),
        selector=before.get("selector"),
        conditions=list(carry_transition_times(conditions, before=before.get("conditions") or [])),
    )


def status_differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether the status must be written: a field of ours has another value, or is there and should not be."""
    wanted = {condition["type"]: condition for condition in desired.get("conditions") or []}
    found = {condition["type"]: condition for condition in live.get("conditions") or []}
    if any(found.get(kind) != condition for kind, condition in wanted.items()):
        return True
    known = {field.alias or name for name, field in LlamaModelStatus.model_fields.items()} - {"conditions"}
    return any(desired.get(key) != live.get(key) for key in known)


def _conditions(now: Situation, verdict: Verdict, time: str) -> Iterator[Condition]:
    def condition(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Condition:
        return Condition(
            type=kind,
            status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
            reason=reason,
            message=message,
            last_transition_time=time,
            observed_generation=now.model.generation,
        )

    if now.observed.refusals:
        yield condition(ConditionType.ACCEPTED, False, verdict.reason, verdict.message)
    else:
        yield condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "the spec is valid and all objects exist")
    if now.ready_count:
        yield condition(
            ConditionType.AVAILABLE, True, Reason.PODS_AVAILABLE, f"{_pods(now.ready_count)} answer requests"
        )
    else:
        yield condition(ConditionType.AVAILABLE, False, Reason.NO_POD_AVAILABLE, "no pod answers requests")
    is_ready = verdict.reason is Reason.READY
    if is_ready:
        yield condition(ConditionType.PROGRESSING, False, Reason.ROLLOUT_COMPLETE, "all pods run this spec")
    else:
        yield condition(ConditionType.PROGRESSING, verdict.moving, verdict.reason, verdict.message)
    yield condition(ConditionType.READY, is_ready, verdict.reason, verdict.message)


def _last_failure(now: Situation) -> LastFailure | None:
    ended = [pod.last_termination for pod in now.observed.pods if pod.last_termination and not pod.terminating]
    if ended:
        latest = max(ended, key=lambda termination: termination.finished_at)
        timeout = now.model.spec.settled_startup_timeout_sec
        return LastFailure(
            reason=_failure_reason(latest, startup_timeout_sec=timeout),
            message=_tail(latest.message) or latest.reason or "the container wrote nothing",
            exit_code=latest.exit_code,
            time=latest.finished_at,
        )
    before = now.model.status
    if before.get("lastFailure") and before.get("observedGeneration") == now.model.generation:
        return LastFailure.model_validate(before["lastFailure"])
    return None


_STOPPED_BY_SIGNAL = frozenset({0, 137, 143})
"""Exit codes of a server that the kubelet told to stop: it obeyed, or was killed after the grace period."""


def _failure_reason(ended: Termination, *, startup_timeout_sec: int) -> Reason:
    if ended.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY
    if ended.started_at and ended.finished_at and ended.exit_code in _STOPPED_BY_SIGNAL:
        lasted = parse_time(ended.finished_at) - parse_time(ended.started_at)
        if lasted >= timedelta(seconds=startup_timeout_sec - 3):
            return Reason.STARTUP_TIMEOUT
    return Reason.CRASH_LOOP


def _failure_sentence(reason: Reason, ended: Termination, model: LlamaModel) -> str:
    match reason:
        case Reason.OUT_OF_MEMORY:
            limits = (model.spec.resources.limits if model.spec.resources else None) or {}
            limit = f" of {limits['memory']}" if "memory" in limits else ""
            return f"killed for going over its memory limit{limit}: raise spec.resources.limits.memory"
        case Reason.STARTUP_TIMEOUT:
            seconds = model.spec.settled_startup_timeout_sec
            return f"not ready within {seconds} s of its start, restarted: raise spec.startupTimeoutSec"
        case _:
            said = _tail(ended.message, lines=1) or ended.reason or "the container wrote nothing"
            return f"llama-server ended with exit code {ended.exit_code}: {said}"


def _tail(message: str, *, lines: int = 8, characters: int = 1024) -> str:
    kept = [line.rstrip() for line in message.splitlines() if line.strip()]
    return "\n".join(kept[-lines:])[-characters:]


def _deployment_condition(deployment: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def parse_time(text: str) -> datetime:
    """A time as Kubernetes writes it (RFC 3339, UTC)."""
    return datetime.fromisoformat(text)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
