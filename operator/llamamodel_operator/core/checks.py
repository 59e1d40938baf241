"""The ordered chain of small checks that says where a LlamaModel stands; the first that speaks wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeAlias

from llamamodel_operator.api.conditions import ConditionType, Reason
from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.guide import guide_link
from llamamodel_operator.api.labels import REVISION_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.status import Phase
from llamamodel_operator.core.engine.offload_log import Offload
from llamamodel_operator.core.failure import diagnosis_of_message, failure_of
from llamamodel_operator.core.inspection import InspectionState
from llamamodel_operator.core.observed import Observed, Pod, Proof, ServerReport
from llamamodel_operator.core.offload_text import offload_of_text
from llamamodel_operator.core.plan import Plan
from llamamodel_operator.core.pod_messages import (
    IMAGE_REASONS,
    image_trouble,
    is_mere_back_off,
    refusal_reason,
    scheduling_advice,
)
from llamamodel_operator.core.times import format_time, parse_time

__all__ = ["CHAIN", "Situation", "Verdict", "count_of", "not_reached", "revision_of", "verdict_of"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Where a LlamaModel stands.

    Attributes:
        moving: whether it gets further without anybody doing anything.
        deadline: RFC 3339, by which the pod that loads the model must answer; None where none does.
    """

    reason: Reason
    message: str
    phase: Phase
    moving: bool = False
    deadline: str | None = None


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
    def pods(self) -> tuple[Pod, ...]:
        """Pods that are not on their way out."""
        return tuple(pod for pod in self.observed.pods if not pod.terminating)

    @property
    def current_pods(self) -> tuple[Pod, ...]:
        """Those of them that run the present spec; while that is held back, the one that the Deployment has."""
        return tuple(pod for pod in self.pods if pod.revision == self.revision)

    @property
    def revision(self) -> str:
        """Digest of the pod template that is meant to run now: what is left as it is stays meant."""
        kept = self.observed.held_back or self.observed.left_alone
        if not kept or self.observed.deployment is None:
            return self.plan.revision
        return revision_of(self.observed.deployment)

    @property
    def unready_pods(self) -> tuple[Pod, ...]:
        """Those of the present spec that do not answer: what is wrong with them is what is wrong."""
        return tuple(pod for pod in self.current_pods if not pod.ready)

    @property
    def spec_runs(self) -> bool:
        """Whether the Deployment was made for this very spec."""
        engine = self.model.status.get("engine")
        settled = engine.get("settledFor") if isinstance(engine, Mapping) else None
        return self.observed.deployment is not None and settled == self.plan.settled_for

    def does_not_serve(self, pod: Pod, report: ServerReport) -> bool:
        """Whether its server was asked, and is no good. One that has answered before, and is slow now, is busy."""
        return report.proof is Proof.FAILS or (report.proof is Proof.SILENT and not self.proven_before(pod))

    def proven_before(self, pod: Pod) -> bool:
        """Whether the pod's server was seen to serve since it started: the LlamaModel has been Ready all the time."""
        ready = self._stored(ConditionType.READY)
        since = str(ready.get("lastTransitionTime") or "")
        return ready.get("status") == "True" and bool(pod.running_since) and since >= pod.running_since

    def offload(self, pod: Pod) -> Offload | None:
        """What the log of the pod's server says of GPUs, or has said before in this very run: the log of one that runs
        for long loses its beginning, and an earlier process of the operator has read it."""
        report = self.observed.servers.get(pod.name)
        if report is not None and report.offload is not None:
            return report.offload
        stored = self._stored(ConditionType.OFFLOADED)
        found = offload_of_text(str(stored.get("message") or ""), pod=pod.name) if self.spec_runs else None
        if found is None:
            return None
        since = str(stored.get("lastTransitionTime") or "")
        holds = self.proven_before(pod) if found.on_gpu else bool(pod.running_since) and since > pod.running_since
        return found if holds else None

    @property
    def ready_before(self) -> Mapping[str, Any]:
        """The condition Ready as it is stored, where it speaks of this generation; empty where it does not."""
        found = self._stored(ConditionType.READY)
        return found if found.get("observedGeneration") == self.model.generation else {}

    def _stored(self, kind: ConditionType) -> Mapping[str, Any]:
        """The condition as it is stored; empty where it is not."""
        stored = self.model.status.get("conditions")
        conditions: list[Mapping[str, Any]] = stored if isinstance(stored, list) else []
        return next((c for c in conditions if c.get("type") == kind), {})

    @property
    def deployment_seen(self) -> bool:
        """Whether the Deployment controller knows what was applied last."""
        deployment = self.observed.deployment or {}
        seen = (deployment.get("status") or {}).get("observedGeneration", 0)
        return bool(seen >= (deployment.get("metadata") or {}).get("generation", 1))

    @property
    def ready_count(self) -> int:
        """Pods that answer, of whatever spec."""
        return sum(pod.ready for pod in self.pods)


Check: TypeAlias = Callable[[Situation], Verdict | None]


def refused(now: Situation) -> Verdict | None:
    """A child could not be written: nothing else matters until it can."""
    if not now.observed.refusals:
        return None
    first, *rest = now.observed.refusals
    more = f" ({count_of(len(rest), 'more object')} refused)" if rest else ""
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
    stopping = f"; {count_of(left, 'pod')} still stopping" if left else ""
    return Verdict(reason=why, message=what_to_do + stopping, phase=Phase.SUSPENDED, moving=bool(left))


def memory_too_small(now: Situation) -> Verdict | None:
    """The policy Block holds what does not fit."""
    if not now.plan.hold:
        return None
    return Verdict(reason=Reason.MEMORY_TOO_SMALL, message=now.plan.hold, phase=Phase.PENDING)


def held_back(now: Situation) -> Verdict | None:
    """What the spec asks for is not applied: it cannot work, or is known not to start."""
    if not now.observed.held_back:
        return None
    reason = Reason.INVALID_SPEC if now.plan.errors else Reason.HELD_BACK
    return Verdict(reason=reason, message=now.observed.held_back, phase=Phase.FAILED)


def claim_unusable(now: Situation) -> Verdict | None:
    """No pod can start while the claim with the model is not there."""
    claim = now.observed.claim
    if claim is None or (claim.phase == "Bound" and not claim.terminating):
        return None
    where = f"PersistentVolumeClaim {claim.name} in namespace {now.model.namespace}"
    if not claim.phase:
        return Verdict(
            reason=Reason.CLAIM_NOT_FOUND,
            message=f"{where} does not exist: create it, or correct {claim.field}",
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


def files_bad(now: Situation) -> Verdict | None:
    """The files were looked at, and cannot be served."""
    inspection = now.plan.inspection
    if inspection is None or inspection.state is not InspectionState.BAD:
        return None
    return Verdict(reason=inspection.reason, message=inspection.message, phase=Phase.FAILED)


def files_changed(now: Situation) -> Verdict | None:
    """A pod that is about to start has found other files than those that were inspected, or bad ones."""
    for pod in now.unready_pods:
        if pod.check_failure is not None:
            verdict = pod.check_failure.verdict
            return Verdict(
                reason=verdict.reason,
                message=f"{verdict.message} (found by pod {pod.name} when it was about to start)",
                phase=Phase.UPDATING if now.ready_count else Phase.FAILED,
                moving=bool(verdict.expected),
            )
    return None


def inspecting(now: Situation) -> Verdict | None:
    """The files are looked at before anything takes a GPU. What runs already is judged by its pods."""
    inspection = now.plan.inspection
    if inspection is None or inspection.state is not InspectionState.PENDING or now.spec_runs:
        return None
    phase = Phase.UPDATING if now.ready_count else Phase.PENDING
    message = f"the files are inspected before the model starts: {inspection.message}"
    return claim_pending(now) or Verdict(reason=inspection.reason, message=message, phase=phase, moving=True)


def pods_not_created(now: Situation) -> Verdict | None:
    """The Deployment exists, but its pods are refused: a quota, pod security, an admission webhook."""
    failure = _deployment_condition(now.observed.deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    message = failure.get("message") or "the API server refuses the pods"
    reason = refusal_reason(message, otherwise=Reason.POD_CREATION_FAILED)
    advice = (
        "; correct spec.podSecurityContext, or the level of the namespace"
        if reason is Reason.POD_SECURITY_VIOLATION
        else ""
    )
    return Verdict(
        reason=reason,
        message=f"no pod could be created: {message}{advice}",
        phase=Phase.FAILED,
    )


_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def image_not_pulled(now: Situation) -> Verdict | None:
    """The image does not exist, or may not be pulled."""
    for pod in now.unready_pods:
        if pod.waiting_reason not in _IMAGE_REASONS:
            continue
        before = now.ready_before
        if is_mere_back_off(pod.waiting_message) and before.get("reason") in IMAGE_REASONS:
            # The kubelet said before why it cannot be pulled, and says so again at its next try.
            reason, said = Reason(before["reason"]), str(before.get("message", ""))
            return Verdict(reason=reason, message=said.removesuffix(_see(reason)), phase=Phase.FAILED)
        trouble = image_trouble(pod.waiting_reason, pod.waiting_message)
        if pod.check_waits:
            what = "the image of the operator, with which each pod checks its files,"
            remedy = "check spec.imagePullSecrets, and whether the registry still has this image"
        else:
            what, remedy = f"image {now.plan.image}", trouble.remedy
        return Verdict(
            reason=trouble.reason,
            message=f"{what} cannot be pulled: {trouble.message}; {remedy}",
            phase=Phase.FAILED,
        )
    return None


def container_not_created(now: Situation) -> Verdict | None:
    """The kubelet cannot make the container: a missing Secret or ConfigMap in env, a UID that is refused."""
    for pod in now.unready_pods:
        if pod.waiting_reason in _CONFIG_REASONS:
            known = diagnosis_of_message(pod.waiting_message)
            message = f"the container of pod {pod.name} cannot be created: {pod.waiting_message or pod.waiting_reason}"
            return Verdict(
                reason=known.reason if known else Reason.CONTAINER_CONFIG_ERROR,
                message=f"{message}; {known.remedy}" if known else message,
                phase=Phase.FAILED,
            )
    return None


def container_keeps_ending(now: Situation) -> Verdict | None:
    """The container was started and ended before it could answer."""
    for pod in now.unready_pods:
        ended = pod.last_termination
        if ended is None or pod.started:
            continue
        failure = failure_of(ended, model=now.model, plan=now.plan, known=now.observed.diagnoses.get(pod.name))
        return Verdict(
            reason=failure.reason,
            message=f"{failure.sentence} (pod {pod.name}, {count_of(pod.restarts, 'restart')})",
            phase=Phase.FAILED,
        )
    return None


def not_prepared(now: Situation) -> Verdict | None:
    """A node has the pod and cannot make it ready for its containers: a volume, the network."""
    for pod in now.unready_pods:
        if trouble := now.observed.troubles.get(pod.name):
            where = f" on node {pod.node}" if pod.node else ""
            return Verdict(
                reason=trouble.reason,
                message=f"pod {pod.name}{where} cannot start its containers: {trouble.message}; {trouble.remedy}",
                phase=Phase.UPDATING if now.ready_count else Phase.FAILED,
            )
    return None


def unschedulable(now: Situation) -> Verdict | None:
    """No node has room for a pod. While a pod of ours still stops, its room is what the new one waits for."""
    stopping = [pod for pod in now.observed.pods if pod.terminating]
    for pod in now.unready_pods:
        if pod.unschedulable and stopping:
            names = ", ".join(f"{old.name} (on node {old.node or 'none'})" for old in stopping)
            return Verdict(
                reason=Reason.STARTING,
                message=f"pod {pod.name} waits for the room of what is still being deleted, {names}: "
                + pod.unschedulable.rstrip("."),
                phase=Phase.UPDATING if now.ready_count else Phase.PENDING,
                moving=True,
            )
        if pod.unschedulable:
            gpu = now.model.spec.gpu
            hint = f"; spec.gpu asks for {gpu.count} {gpu.resource_name} per pod" if gpu else ""
            claim = now.observed.claim
            if claim is not None and claim.phase == "Pending":
                hint += f"; PersistentVolumeClaim {claim.name} is Pending"
            if advice := scheduling_advice(pod.unschedulable):
                hint += f": {', or '.join(advice)}"
            return Verdict(
                reason=Reason.UNSCHEDULABLE,
                message=f"pod {pod.name} fits no node: {pod.unschedulable.rstrip('.')}{hint}",
                phase=Phase.UPDATING if now.ready_count else Phase.PENDING,
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
            timeout = timedelta(seconds=now.plan.spec.settled_startup_timeout_sec)
            deadline = format_time(parse_time(pod.running_since) + timeout)
            return Verdict(
                reason=Reason.LOADING,
                message=f"pod {pod.name} loads the model, it has until {deadline}",
                phase=Phase.UPDATING if now.ready_count else Phase.LOADING,
                moving=True,
                deadline=deadline,
            )
    return None


def pod_not_ready(now: Situation) -> Verdict | None:
    """A pod answered before, or its server still does, and the cluster says that it is not ready: its node is gone,
    a sidecar or a readiness gate is not ready. One that was not ready so far is given the rollout's deadline: a
    sidecar may take longer to start than a small model."""
    for pod in now.unready_pods:
        if not pod.started or not (pod.was_ready or pod.server_ready):
            continue
        said = pod.not_ready_message or "no reason given"
        if not pod.was_ready and not _given_up(now):
            return Verdict(
                reason=Reason.LOADING,
                message=f"the model is loaded, pod {pod.name} is not ready yet: {said}",
                phase=Phase.UPDATING if now.ready_count else Phase.LOADING,
                moving=True,
            )
        where = f" on node {pod.node}" if pod.node else ""
        return Verdict(
            reason=Reason.POD_NOT_READY,
            message=f"pod {pod.name}{where} runs but is not ready: {said}; see `kubectl describe pod {pod.name}`",
            phase=Phase.UPDATING if now.ready_count else Phase.FAILED,
        )
    return None


def deadline_exceeded(now: Situation) -> Verdict | None:
    """Nothing got further for so long that the Deployment controller gave the rollout up."""
    if not _given_up(now):
        return None
    progressing = _deployment_condition(now.observed.deployment, "Progressing")
    names = [pod.name for pod in now.unready_pods]
    look = f"see `kubectl describe pod {names[0]}`" if names else f"see `kubectl describe deployment {now.plan.name}`"
    return Verdict(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED,
        message=f"nothing got further before the deadline ({progressing.get('message') or 'no reason given'});"
        f" a volume that does not mount or an init container are the usual causes, {look}",
        phase=Phase.UPDATING if now.ready_count else Phase.FAILED,
    )


def rollout_unfinished(now: Situation) -> Verdict | None:
    """Fewer pods of this spec answer than wanted, or others are still there."""
    current = sum(pod.ready for pod in now.current_pods)
    if current == now.wanted == len(now.pods) and now.deployment_seen:
        return None
    if now.ready_count == 0 and any(pod.started for pod in now.unready_pods):
        return Verdict(
            reason=Reason.LOADING,
            message="the model is loaded, waiting for the first successful readiness probe",
            phase=Phase.LOADING,
            moving=True,
        )
    if now.ready_count == 0:
        so_far = count_of(len(now.unready_pods), "pod") if now.unready_pods else "no pod yet"
        return Verdict(
            reason=Reason.STARTING,
            message=f"starting: {so_far}, none answers so far",
            phase=Phase.PENDING,
            moving=True,
        )
    return Verdict(
        reason=Reason.ROLLING_OUT,
        message=f"{count_of(current, 'pod')} of this spec answer{'s' if current == 1 else ''}, {now.wanted} wanted;"
        f" {count_of(len(now.pods) - len(now.current_pods), 'pod')} of an earlier spec",
        phase=Phase.UPDATING,
        moving=True,
    )


def key_not_required(now: Situation) -> Verdict | None:
    """A server answers who shows no key, although the spec asks for one."""
    for pod in now.current_pods:
        report = now.observed.servers.get(pod.name)
        if pod.ready and report is not None and report.proof is Proof.OPEN:
            return Verdict(
                reason=Reason.API_KEY_NOT_REQUIRED,
                message=f"pod {pod.name} is ready, and its server answers without an API key, although the spec has"
                f" apiKeySecretRef: {report.problem}",
                phase=Phase.FAILED,
            )
    return None


def not_answering(now: Situation) -> Verdict | None:
    """A pod is ready for the kubelet, and its server does not serve the model."""
    for pod in now.current_pods:
        report = now.observed.servers.get(pod.name)
        if pod.ready and report is not None and now.does_not_serve(pod, report):
            return Verdict(
                reason=Reason.NOT_ANSWERING,
                message=f"pod {pod.name} is ready, and its server does not answer as it must: {report.problem};"
                f" see `kubectl logs {pod.name}`",
                phase=Phase.FAILED,
            )
    return None


def verifying(now: Situation) -> Verdict | None:
    """A server is being asked whether it serves the model, or its log is being read where that matters. Where an
    earlier process of the operator has seen it do so, that holds."""
    for pod in now.current_pods:
        if not pod.ready or not pod.address or now.proven_before(pod):
            continue
        report = now.observed.servers.get(pod.name)
        unproven = report is None or report.proof is None
        if unproven or (now.plan.spec.require_offload and report is not None and report.log_pending):
            what = "server is asked for a first answer" if unproven else "log is read for whether it has a GPU"
            return Verdict(
                reason=Reason.VERIFYING,
                message=f"pod {pod.name} is ready, its {what}",
                phase=Phase.UPDATING if now.ready_count > 1 else Phase.LOADING,
                moving=True,
            )
    return None


def runs_on_cpu(now: Situation) -> Verdict | None:
    """The spec wants a GPU to be used, and a server says that it has none."""
    if not now.plan.spec.require_offload:
        return None
    for pod in now.current_pods:
        offload = now.offload(pod)
        if pod.ready and offload is not None and not offload.on_gpu:
            return Verdict(
                reason=Reason.RUNS_ON_CPU,
                message=f"pod {pod.name} runs on the CPU, and spec.requireOffload is true; its log says:"
                f" {offload.line}; see the condition Offloaded for what to do",
                phase=Phase.FAILED,
            )
    return None


_WHAT_WOULD_LET_IN: Mapping[Proof | None, str] = {
    Proof.NOT_REACHED: "let the operator's pods reach port 8080 of the model's pods (NetworkPolicy, service mesh)",
    Proof.LOCKED: "nothing has to be done where that is meant; neither the operator nor the gateway reads Secrets, so"
    " neither has the key: to be asked by them, the server must be started with that of spec.apiKeySecretRef, or"
    " without one",
}


def _what_would_let_in(proof: Proof | None, model: LlamaModel) -> str:
    ref = model.spec.api_key_secret_ref
    if proof is not Proof.LOCKED or ref is None:
        return _WHAT_WOULD_LET_IN[proof]
    return (
        f"put a key that is in the entry {ref.key} of Secret {ref.name} into the entry {model.namespace} of the Secret"
        " that podKeys.secretName of the operator's chart names; of a key that is new in the first, pods know when they"
        " are started anew"
    )


def not_reached(now: Situation) -> Iterator[Finding]:
    """Servers that the operator cannot ask, although the kubelet calls them ready: no reason not to be Ready."""
    for pod in now.current_pods:
        report = now.observed.servers.get(pod.name)
        if pod.ready and report is not None and report.proof in _WHAT_WOULD_LET_IN:
            yield Finding(
                severity=Severity.WARNING,
                code=FindingCode.SERVER_NOT_REACHED,
                field="status",
                message=f"pod {pod.name} is ready, and the operator cannot ask its server: {report.problem}",
                suggestion=_what_would_let_in(report.proof, now.model),
            )


def all_is_well(now: Situation) -> Verdict:
    """The end of the chain."""
    served = f"as {now.model.served_name} at {now.plan.endpoint}"
    verb = "serves" if now.wanted == 1 else "serve"
    return Verdict(reason=Reason.READY, message=f"{count_of(now.wanted, 'pod')} {verb} {served}", phase=Phase.READY)


CHAIN: Sequence[Check] = (
    refused,
    suspended,
    memory_too_small,
    held_back,
    claim_unusable,
    files_bad,
    inspecting,
    files_changed,
    pods_not_created,
    image_not_pulled,
    container_not_created,
    container_keeps_ending,
    not_prepared,
    unschedulable,
    claim_pending,
    pod_not_ready,
    deadline_exceeded,
    loading,
    key_not_required,
    not_answering,
    rollout_unfinished,
    runs_on_cpu,
    verifying,
    all_is_well,
)
"""Order is priority: what must be mended first is said first."""


def verdict_of(situation: Situation) -> Verdict:
    """The first verdict of the chain; the last check always has one. Where somebody has to do something, the message
    ends with the section of the documentation."""
    found = next(found for check in CHAIN if (found := check(situation)) is not None)
    if found.moving or found.phase in (Phase.READY, Phase.SUSPENDED):
        return found
    return replace(found, message=found.message + _see(found.reason))


def _see(reason: str) -> str:
    return f"; see {guide_link(reason)}"


def revision_of(deployment: Mapping[str, Any]) -> str:
    """Digest of the pod template that a Deployment was made from."""
    labels = deployment["spec"]["template"]["metadata"].get("labels") or {}
    return str(labels.get(REVISION_LABEL, ""))


def _given_up(now: Situation) -> bool:
    """Whether the Deployment controller has given the present rollout up."""
    progressing = _deployment_condition(now.observed.deployment, "Progressing")
    return progressing.get("status") == "False" and now.deployment_seen


def _deployment_condition(deployment: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def count_of(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
