"""From what was observed to the status: the verdict of the checks, as conditions and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from llamamodel_operator.api.base import ApiModel
from llamamodel_operator.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    carry_transition_times,
)
from llamamodel_operator.api.findings import Severity, sentence
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.status import (
    EndpointsStatus,
    EngineStatus,
    LastFailure,
    LlamaModelStatus,
    LoraAdapterStatus,
    MeasuredMemoryStatus,
    MemoryStatus,
    ModelStatus,
    Phase,
)
from llamamodel_operator.core.checks import Situation, Verdict, count_of, not_reached, verdict_of
from llamamodel_operator.core.failure import UNKNOWN_CAUSES, diagnosis_of_status, failure_of, tail
from llamamodel_operator.core.inspection import InspectionState
from llamamodel_operator.core.memory_status import memory_status, model_status
from llamamodel_operator.core.objects.names import selector
from llamamodel_operator.core.observed import Observed
from llamamodel_operator.core.offloaded import offloaded
from llamamodel_operator.core.plan import Plan
from llamamodel_operator.core.times import format_time

__all__ = ["invalid_status", "make_status", "status_differs"]


def make_status(model: LlamaModel, *, plan: Plan, observed: Observed, now: datetime) -> LlamaModelStatus:
    """The status of a LlamaModel whose spec is valid. Pure; `now` only dates conditions that change."""
    situation = Situation(model=model, plan=plan, observed=observed)
    verdict = verdict_of(situation)
    conditions = _conditions(situation, verdict, format_time(now))
    status = LlamaModelStatus(
        observed_generation=model.generation,
        phase=verdict.phase,
        startup_deadline=verdict.deadline,
        replicas=len(situation.pods),
        ready_replicas=situation.ready_count,
        selector=",".join(f"{key}={value}" for key, value in selector(plan.name).items()),
        endpoint=None if any(refusal.kind == "Service" for refusal in observed.refusals) else plan.endpoint,
        served_model_name=model.served_name,
        gateway_name=plan.gateway_names.has,
        refused_name=plan.gateway_names.refused,
        model=model_status(plan.inspection),
        memory=memory_status(
            plan.estimate,
            plan.fits,
            largest_context=plan.largest_context,
            measured=next((r.measured for _, r in sorted(observed.servers.items()) if r.measured is not None), None),
        ),
        engine=_engine(situation),
        endpoints=_endpoints(model, plan),
        lora_adapters=_adapters(situation),
        command=_command(plan),
        findings=[*plan.findings, *not_reached(situation)][:_MOST_FINDINGS] or None,
        conditions=list(carry_transition_times(conditions, before=model.status.get("conditions") or [])),
        last_failure=_last_failure(situation),
    )
    if status.memory is not None and status.memory.measured is None:
        kept = _measured_before(situation)
        status = status.model_copy(update={"memory": status.memory.model_copy(update={"measured": kept})})
    if observed.held_back or observed.left_alone:
        return status.model_copy(update=_of_what_runs(model.status))
    return status


def _measured_before(now: Situation) -> MeasuredMemoryStatus | None:
    """What a server of this very spec said before, while one runs: its log is read once, and a restart of the operator
    need not change the status."""
    memory = now.model.status.get("memory")
    if not isinstance(memory, Mapping) or not _speaks_of_this_spec(now) or not any(p.ready for p in now.current_pods):
        return None
    return _stored(MeasuredMemoryStatus, memory.get("measured"))


def _speaks_of_this_spec(now: Situation) -> bool:
    """Whether the stored status does, as far as pods are concerned."""
    engine = now.model.status.get("engine")
    return isinstance(engine, Mapping) and engine.get("settledFor") == now.plan.settled_for


_LONGEST_COMMAND = 32_768


def _command(plan: Plan) -> list[str]:
    """The command line; of a very long one the beginning, since a status must fit into etcd."""
    words, left = list(plan.command), _LONGEST_COMMAND
    for index, word in enumerate(words):
        left -= len(word)
        if left < 0:
            return [*words[:index], f"… and {len(words) - index} more arguments"]
    return words


def _of_what_runs(before: Mapping[str, Any]) -> dict[str, Any]:
    """While a spec is held back, these still tell of the one that runs; nothing where none does."""
    adapters = before.get("loraAdapters")
    return {
        "endpoint": before.get("endpoint"),
        "served_model_name": before.get("servedModelName"),
        "engine": _stored(EngineStatus, before.get("engine")),
        "endpoints": _stored(EndpointsStatus, before.get("endpoints")),
        "lora_adapters": [found for raw in adapters if (found := _stored(LoraAdapterStatus, raw))]
        if isinstance(adapters, list)
        else None,
        "command": before.get("command"),
        "model": _stored(ModelStatus, before.get("model")),
        "memory": _stored(MemoryStatus, before.get("memory")),
    }


_MOST_FINDINGS = 64


def _engine(now: Situation) -> EngineStatus:
    said = {report.build for report in now.observed.servers.values() if report.build is not None}
    before = now.model.status.get("engine")
    same_image = isinstance(before, Mapping) and before.get("image") == now.plan.image
    known_before = before.get("build") if isinstance(before, Mapping) and same_image else None
    return EngineStatus(
        image=now.plan.image,
        build=f"b{said.pop()}" if len(said) == 1 else known_before,
        flags=f"b{now.plan.flags}",
        # While nothing runs for it, nothing is settled: it starts with what holds on the day that it may.
        settled_for=None if now.plan.hold else now.plan.settled_for,
        settled=None if now.plan.hold else now.plan.settled,
    )


def _endpoints(model: LlamaModel, plan: Plan) -> EndpointsStatus | None:
    wanted = model.spec.endpoints
    if wanted.metrics is False and wanted.slots is False:
        return None
    return EndpointsStatus(
        metrics=None if wanted.metrics is False else f"{plan.endpoint}/metrics",
        slots=None if wanted.slots is False else f"{plan.endpoint}/slots",
    )


def _adapters(now: Situation) -> list[LoraAdapterStatus] | None:
    adapters = now.model.spec.lora_adapters
    if not adapters:
        return None
    said = [report.scales for report in now.observed.servers.values()]
    return [
        LoraAdapterStatus(
            name=adapter.name,
            id=index,
            scale=adapter.settled_scale,
            loaded=sum(len(scales) > index and scales[index] == adapter.settled_scale for scales in said),
        )
        for index, adapter in enumerate(adapters)
    ]


_NOT_OF_THE_SPEC = (
    ConditionType.INSPECTED,
    ConditionType.MEMORY_FITS,
    ConditionType.AVAILABLE,
    ConditionType.OFFLOADED,
)
"""What cannot be told of a spec that is not understood."""


def invalid_status(*, generation: int, message: str, before: Mapping[str, Any], now: datetime) -> LlamaModelStatus:
    """The status of a stored LlamaModel that the types refuse; what runs is left as it is."""
    conditions = [
        Condition(
            type=kind,
            status=ConditionStatus.UNKNOWN if kind in _NOT_OF_THE_SPEC else ConditionStatus.FALSE,
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
        endpoint=before.get("endpoint"),
        served_model_name=before.get("servedModelName"),
        gateway_name=before.get("gatewayName"),
        refused_name=before.get("refusedName"),
        model=_stored(ModelStatus, before.get("model")),
        memory=_stored(MemoryStatus, before.get("memory")),
        engine=_stored(EngineStatus, before.get("engine")),
        command=before.get("command"),
        last_failure=_stored(LastFailure, before.get("lastFailure")),
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
    def condition(kind: ConditionType, holds: bool | ConditionStatus, reason: str, message: str) -> Condition:
        known = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
        return Condition(
            type=kind,
            status=holds if isinstance(holds, ConditionStatus) else known,
            reason=reason,
            message=message,
            last_transition_time=time,
            observed_generation=now.model.generation,
        )

    if now.observed.held_back:
        reason = Reason.INVALID_SPEC if now.plan.errors else Reason.HELD_BACK
        yield condition(ConditionType.ACCEPTED, False, reason, now.observed.held_back)
    elif now.observed.refusals:
        yield condition(ConditionType.ACCEPTED, False, verdict.reason, verdict.message)
    else:
        yield condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, _accepted(now.plan))
    yield condition(ConditionType.INSPECTED, *_inspected(now.plan))
    yield condition(ConditionType.MEMORY_FITS, *_fits(now))
    if now.ready_count:
        yield condition(
            ConditionType.AVAILABLE,
            True,
            Reason.PODS_AVAILABLE,
            f"requests are answered by {count_of(now.ready_count, 'pod')}",
        )
    else:
        yield condition(ConditionType.AVAILABLE, False, Reason.NO_POD_AVAILABLE, "no pod answers requests")
    is_ready = verdict.reason is Reason.READY
    if is_ready:
        yield condition(ConditionType.PROGRESSING, False, Reason.ROLLOUT_COMPLETE, "all pods run this spec")
    else:
        yield condition(ConditionType.PROGRESSING, verdict.moving, verdict.reason, verdict.message)
    yield condition(ConditionType.OFFLOADED, *offloaded(now))
    yield condition(ConditionType.READY, is_ready, verdict.reason, verdict.message)


_INSPECTED = {
    InspectionState.DONE: ConditionStatus.TRUE,
    InspectionState.BAD: ConditionStatus.FALSE,
    InspectionState.PENDING: ConditionStatus.UNKNOWN,
    InspectionState.UNKNOWN: ConditionStatus.UNKNOWN,
}


def _inspected(plan: Plan) -> tuple[ConditionStatus, Reason, str]:
    if plan.inspection is None:
        return ConditionStatus.UNKNOWN, Reason.INSPECTION_OFF, "the files are not inspected"
    return _INSPECTED[plan.inspection.state], plan.inspection.reason, plan.inspection.message


def _fits(now: Situation) -> tuple[ConditionStatus, str, str]:
    """While files are inspected again, what was said of this spec before still holds."""
    inspection = now.plan.inspection
    if inspection is not None and inspection.state is InspectionState.PENDING and _speaks_of_this_spec(now):
        stored = (_stored(Condition, raw) for raw in now.model.status.get("conditions") or ())
        for before in stored:
            if before is not None and before.type == ConditionType.MEMORY_FITS:
                return before.status, before.reason, before.message
    return now.plan.fits.status, now.plan.fits.reason, now.plan.fits.message


def _accepted(plan: Plan) -> str:
    """The spec is valid; what is worth a warning is said here too, for those who look at conditions alone."""
    warnings = [finding for finding in plan.findings if finding.severity is Severity.WARNING]
    if not warnings:
        return "the spec is valid and all objects exist"
    more = f"; {count_of(len(warnings) - 1, 'more warning')} in status.findings" if len(warnings) > 1 else ""
    return f"the spec is valid and all objects exist; warning: {sentence(warnings[0])}{more}"


def _last_failure(now: Situation) -> LastFailure | None:
    """Of the present spec: the newest end that a pod of it still knows, else the one that was known before."""
    ended = [(pod.last_termination, pod.name) for pod in now.current_pods if pod.last_termination is not None]
    dated = [(termination, pod) for termination, pod in ended if termination.finished_at]
    if dated:
        latest, pod = max(dated, key=lambda item: item[0].finished_at)
        # Of a pod that serves again nobody reads the log anew.
        known = now.observed.diagnoses.get(pod) or diagnosis_of_status(now.model.status, latest)
        failure = failure_of(latest, model=now.model, plan=now.plan, known=known)
        return LastFailure(
            reason=failure.reason,
            message=failure.message,
            line=failure.line or None,
            remedy=failure.remedy or None,
            last_lines=tail(latest.message) or None if failure.reason in UNKNOWN_CAUSES else None,
            exit_code=latest.exit_code,
            time=latest.finished_at,
        )
    before = now.model.status
    if before.get("observedGeneration") != now.model.generation:
        return None
    return _stored(LastFailure, before.get("lastFailure"))


T = TypeVar("T", bound=ApiModel)


def _stored(kind: type[T], raw: object) -> T | None:
    """A part of the stored status, where it is there and of today's form."""
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None
