"""What was read from the cluster about one LlamaModel, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.labels import REVISION_LABEL
from llamamodel_operator.core.engine.buffer_log import Measured
from llamamodel_operator.core.engine.diagnosis import Diagnosis
from llamamodel_operator.core.engine.offload_log import Offload
from llamamodel_operator.core.inspection import Verdict
from llamamodel_operator.core.pod_messages import Trouble

__all__ = ["CheckFailure", "Claim", "Observed", "Pod", "Proof", "Refusal", "ServerReport", "Termination"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim that the model is read from.

    Attributes:
        phase: Pending, Bound or Lost; empty where the claim does not exist.
        field: path of the field that names it.
        terminating: whether it is being deleted.
    """

    name: str
    phase: str
    field: str = "spec.model.pvc.claimName"
    terminating: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A child that could not be written."""

    kind: str
    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Termination:
    """How a container ended. Times are RFC 3339, in UTC.

    Attributes:
        exit_code: 128 + N where signal N ended it.
        previous: it was started again since, so that its log is that of the run before.
    """

    exit_code: int
    reason: str
    message: str
    started_at: str
    finished_at: str
    previous: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckFailure:
    """What the check of the files said when a pod was about to start."""

    verdict: Verdict
    finished_at: str


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What matters of a pod: where it is on its way, and how its container last ended.

    Attributes:
        uid: of this very pod.
        revision: digest of the template that it was made from.
        ready: it answers and is not being deleted.
        not_ready_message: what the kubelet or the node controller says of it while it does not.
        server_ready: its container passes its probe, whatever the pod's sidecars and readiness gates do.
        was_ready: it answered before in this run of its container, and does not any more.
        terminating: it is being deleted.
        unschedulable: the scheduler's message while no node fits.
        waiting_reason, waiting_message: why the container does not run, as the kubelet says.
        check_waits: it is the check of the files that does not run.
        prepared_since: since when its node makes it ready for its containers (volumes, network), of which none was
            started yet; empty where that is over, or has not begun.
        running_since: start of the running container.
        started: the startup probe has succeeded in this run.
        last_termination: of the previous run, or of this one where it has ended.
        restarts: how often the container was started again.
        address: IP address of the pod; empty until it has one.
        container_id: of the present run of the container.
        check_failure: why the check of the files does not let it start; None where it does, or has not ended.
    """

    name: str
    uid: str = ""
    revision: str = ""
    node: str = ""
    ready: bool = False
    not_ready_message: str = ""
    server_ready: bool = False
    was_ready: bool = False
    terminating: bool = False
    unschedulable: str = ""
    waiting_reason: str = ""
    waiting_message: str = ""
    check_waits: bool = False
    prepared_since: str = ""
    running_since: str = ""
    started: bool = False
    last_termination: Termination | None = None
    restarts: int = 0
    address: str = ""
    container_id: str = ""
    check_failure: CheckFailure | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], *, container: str, check: str = "") -> Pod:
        """From a pod as the API server has it; only the named container counts, and the named init container that
        checks the files. Sidecars do not."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        scheduled = conditions.get("PodScheduled", {})
        own: Mapping[str, Any] = next(
            (c for c in status.get("containerStatuses") or [] if c.get("name") == container), {}
        )
        state, last = own.get("state") or {}, own.get("lastState") or {}
        checking: Mapping[str, Any] = next(
            (c for c in status.get("initContainerStatuses") or [] if check and c.get("name") == check), {}
        )
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or last.get("terminated")
        check_waits = (checking.get("state") or {}).get("waiting") or {}
        check_is_first = check_waits.get("reason") not in (None, "PodInitializing", "CrashLoopBackOff")
        if check_is_first:
            waiting = check_waits
        ready, running_since = conditions.get("Ready", {}), (state.get("running") or {}).get("startedAt") or ""
        terminating = "deletionTimestamp" in metadata
        unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid") or "",
            revision=(metadata.get("labels") or {}).get(REVISION_LABEL, ""),
            node=(raw.get("spec") or {}).get("nodeName") or "",
            ready=ready.get("status") == "True" and not terminating,
            not_ready_message=ready.get("message") or "",
            server_ready=bool(own.get("ready")),
            was_ready=_later(ready.get("lastTransitionTime"), than=running_since),
            terminating=terminating,
            unschedulable=(scheduled.get("message") or "no node fits") if unschedulable else "",
            waiting_reason=waiting.get("reason") or "",
            waiting_message=waiting.get("message") or "",
            check_waits=check_is_first,
            prepared_since=_prepared_since(status, conditions),
            running_since=running_since,
            started=bool(own.get("started")),
            last_termination=_termination(ended, previous="terminated" not in state) if ended else None,
            restarts=own.get("restartCount") or 0,
            address=status.get("podIP") or "",
            container_id=own.get("containerID") or "",
            check_failure=_check_failure(checking),
        )


def _check_failure(raw: Mapping[str, Any]) -> CheckFailure | None:
    ended = (raw.get("state") or {}).get("terminated") or (raw.get("lastState") or {}).get("terminated") or {}
    verdict = Verdict.parse(ended.get("message") or "") if ended.get("exitCode") else None
    return CheckFailure(verdict=verdict, finished_at=ended.get("finishedAt") or "") if verdict else None


def _later(time: str | None, *, than: str) -> bool:
    return time is not None and bool(than) and time > than  # RFC 3339 in UTC sorts as text


def _prepared_since(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """When it was given a node, while nothing of it was started. While an image is pulled, its sandbox is there."""
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    begun = any({"running", "terminated"} & {*(c.get("state") or {}), *(c.get("lastState") or {})} for c in containers)
    if begun or conditions.get("PodReadyToStartContainers", {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled", {})
    return scheduled.get("lastTransitionTime") or "" if scheduled.get("status") == "True" else ""


def _termination(raw: Mapping[str, Any], *, previous: bool) -> Termination:
    signal = raw.get("signal") or 0
    return Termination(
        exit_code=raw.get("exitCode") or (128 + signal if signal else 0),
        reason=raw.get("reason") or "",
        message=(raw.get("message") or "").strip(),
        started_at=raw.get("startedAt") or "",
        finished_at=raw.get("finishedAt") or "",
        previous=previous,
    )


class Proof(StrEnum):
    """Whether a server was seen to serve its model."""

    ANSWERS = "answers"
    """It is healthy, has the model under its name, and answered one small request of the model's task."""
    FAILS = "fails"
    """It could be asked, and did not answer as it must."""
    SILENT = "silent"
    """It takes connections, and did not answer what it was asked in two minutes: it hangs, or others wait before it."""
    NOT_REACHED = "not-reached"
    """It could not be asked: no connection, or somebody else answers in its place. Nobody knows."""
    LOCKED = "locked"
    """It wants an API key, which the operator has not. Nobody knows."""
    OPEN = "open"
    """It must want an API key, and answers without one."""


@dataclass(frozen=True, kw_only=True)
class ServerReport:
    """What a running llama-server said of itself.

    Attributes:
        proof: whether it serves its model; None while it is being asked.
        problem: what it answered instead, or why it could not be asked.
        log_pending: its log is still to be read.
        offload: what its log says of GPUs; None where it says nothing, or was not read.
        build: number of its build; None where it did not say.
        scales: of its LoRA adapters, in their order.
        measured: what memory it took, by its log; None where the log does not tell, or was not read.
    """

    proof: Proof | None = None
    problem: str = ""
    log_pending: bool = False
    offload: Offload | None = None
    build: int | None = None
    scales: tuple[float, ...] = ()
    measured: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One consistent look at the world.

    Attributes:
        deployment: as the API server has it after this pass's writes; None where it could not be written.
        pods: of this model, finished ones left out.
        claim: the claim that is in the way, else the model's; None where claims may not be read.
        refusals: children that could not be written in this pass.
        held_back: why what runs was left as it is, although the spec asks for something else; empty where it was not.
        left_alone: what runs was left as it is, since the files are not inspected, or are bad.
        servers: what ready pods said of themselves, by the name of the pod.
        diagnoses: why containers ended, as their logs say, by the name of the pod.
        troubles: why the containers of pods are not started, as events say, by the name of the pod.
    """

    deployment: Mapping[str, Any] | None
    pods: tuple[Pod, ...] = ()
    claim: Claim | None = None
    refusals: tuple[Refusal, ...] = ()
    held_back: str = ""
    left_alone: bool = False
    servers: Mapping[str, ServerReport] = field(default_factory=dict)
    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
