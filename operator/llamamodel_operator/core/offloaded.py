"""The condition Offloaded: whether the servers have the GPUs that were asked for, by what their own logs say."""

from __future__ import annotations

from collections.abc import Mapping

from llamamodel_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from llamamodel_operator.core.checks import Situation

__all__ = ["offloaded"]

_ADVICE = (
    "check that spec.image is built for this GPU, that its driver is new enough on the node, and spec.runtimeClassName"
)


def offloaded(now: Situation) -> tuple[ConditionStatus, Reason, str]:
    """Status, reason and message. False only where a server proves it; what nobody tells is Unknown."""
    spec = now.plan.spec
    if spec.gpu is None:
        return ConditionStatus.UNKNOWN, Reason.NO_GPU_ASKED_FOR, "spec.gpu is unset: the model runs on the CPU"
    if now.model.spec.engine.gpu_layers == 0:
        message = "spec.engine.gpuLayers is 0: the model runs on the CPU, as asked"
        return ConditionStatus.UNKNOWN, Reason.NO_GPU_ASKED_FOR, message
    if spec.engine.gpu_layers == 0:
        message = "no layer fits the GPUs, so the model runs on the CPU; see the condition MemoryFits for what would"
        return ConditionStatus.FALSE, Reason.RUNS_ON_CPU, message
    ready = [pod for pod in now.current_pods if pod.ready]
    reports = ((pod.name, now.observed.servers.get(pod.name)) for pod in ready)
    told = {name: report.offload for name, report in reports if report is not None and not report.log_pending}
    for name, offload in told.items():
        if offload is not None and not offload.on_gpu:
            message = f"pod {name} runs on the CPU, its log says: {offload.line}; {_ADVICE}"
            return ConditionStatus.FALSE, Reason.RUNS_ON_CPU, message
    if ready and len(told) < len(ready) and (before := _before(now)) is not None:
        return before  # the others are being asked, as after a restart of the operator
    known = [offload for offload in told.values() if offload is not None]
    if known and len(known) == len(ready):
        return ConditionStatus.TRUE, Reason.ON_GPU, f"the log of the server says: {known[0].line}"
    if not ready:
        return ConditionStatus.UNKNOWN, Reason.OFFLOAD_UNKNOWN, "no server runs that could tell"
    silent = next((pod.name for pod in ready if told.get(pod.name) is None), ready[0].name)
    message = f"the log of pod {silent} does not tell whether it has a GPU; with `-lv 4` in spec.extraArgs it does"
    return ConditionStatus.UNKNOWN, Reason.OFFLOAD_UNKNOWN, message


def _before(now: Situation) -> tuple[ConditionStatus, Reason, str] | None:
    """What was said of this very spec before."""
    engine = now.model.status.get("engine")
    if not isinstance(engine, Mapping) or engine.get("settledFor") != now.plan.settled_for:
        return None
    conditions = now.model.status.get("conditions") or []
    raw = next((one for one in conditions if one.get("type") == ConditionType.OFFLOADED), None)
    try:
        found = Condition.model_validate(raw)
        return found.status, Reason(found.reason), found.message
    except ValueError:
        return None
