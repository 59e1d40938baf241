"""The condition Offloaded: whether the servers have the GPUs that were asked for, by what their own logs say."""

from __future__ import annotations

from llamamodel_operator.api.conditions import ConditionStatus, Reason
from llamamodel_operator.core.checks import Situation
from llamamodel_operator.core.offload_text import offload_text

__all__ = ["offloaded"]


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
    if not ready:
        return ConditionStatus.UNKNOWN, Reason.OFFLOAD_UNKNOWN, "no server runs that could tell"
    told = {pod.name: offload for pod in ready if (offload := now.offload(pod)) is not None}
    for name, offload in told.items():
        if not offload.on_gpu:
            return ConditionStatus.FALSE, Reason.RUNS_ON_CPU, offload_text(name, offload)
    silent = [pod.name for pod in ready if pod.name not in told]
    if not silent:
        return ConditionStatus.TRUE, Reason.ON_GPU, offload_text(*next(iter(told.items())))
    report = now.observed.servers.get(silent[0])
    if report is None or report.log_pending:
        return ConditionStatus.UNKNOWN, Reason.OFFLOAD_UNKNOWN, f"the log of pod {silent[0]} is being read"
    message = f"the log of pod {silent[0]} does not tell whether it has a GPU; with `-lv 4` in spec.extraArgs it does"
    return ConditionStatus.UNKNOWN, Reason.OFFLOAD_UNKNOWN, message
