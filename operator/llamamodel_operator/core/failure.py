"""How a container ended: the reason, the cause in a sentence, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.engine.diagnosis import Diagnosis, diagnose
from llamamodel_operator.core.inspection import files_of
from llamamodel_operator.core.objects.deployment import mount_path
from llamamodel_operator.core.observed import Termination
from llamamodel_operator.core.plan import Plan
from llamamodel_operator.core.settling import host_need, is_mapped, longer_timeout
from llamamodel_operator.core.sizes import shown_size
from llamamodel_operator.core.times import parse_time

__all__ = [
    "UNKNOWN_CAUSES",
    "diagnosis_of_log",
    "diagnosis_of_message",
    "diagnosis_of_status",
    "failure_of",
    "log_may_tell",
    "tail",
]

UNKNOWN_CAUSES = frozenset({Reason.CRASH_LOOP, Reason.STARTUP_TIMEOUT})
"""Where the last lines of the log are all that there is."""
_PROBE_SLACK_SEC = 4
"""The last failing probe comes a period (3 s at most) before the timeout is over; times have whole seconds."""
_STOP_SLACK_SEC = 60
"""The grace period of 30 s, and what a busy node takes."""
_STOPPED_BY_SIGNAL = frozenset({0, 137, 143})
"""Exit codes of a server that the kubelet told to stop: it obeyed, or was killed after the grace period."""


def failure_of(ended: Termination, *, model: LlamaModel, plan: Plan, known: Diagnosis | None = None) -> Diagnosis:
    """Why it ended.

    Args:
        known: what its whole log told, or what was known of it before; None where nobody looked.
    """
    spec = plan.spec
    if ended.reason == "OOMKilled":
        return _out_of_memory(model, plan)
    if _was_too_slow(ended, startup_timeout_sec=spec.settled_startup_timeout_sec):
        return Diagnosis(
            reason=Reason.STARTUP_TIMEOUT,
            message=f"not ready within {spec.settled_startup_timeout_sec} s of its start, restarted",
            remedy="raise spec.startupTimeoutSec, to "
            f"{longer_timeout(spec.settled_startup_timeout_sec, plan.inspection)} for example",
        )
    found = known or diagnosis_of_log(ended.message, ended=ended, spec=spec)
    if found is not None:
        return found
    said = tail(ended.message, lines=1) or ended.reason or "the container wrote nothing"
    return Diagnosis(reason=Reason.CRASH_LOOP, message=f"llama-server ended with exit code {ended.exit_code}: {said}")


def log_may_tell(ended: Termination, *, spec: LlamaModelSpec) -> bool:
    """Whether more of its log can say more than the end that the kubelet kept."""
    if ended.reason == "OOMKilled" or _was_too_slow(ended, startup_timeout_sec=spec.settled_startup_timeout_sec):
        return False
    found = diagnosis_of_log(ended.message, ended=ended, spec=spec)
    return found is None or not found.sure


def diagnosis_of_log(log: str, *, ended: Termination, spec: LlamaModelSpec) -> Diagnosis | None:
    """What this much of its log tells; None where it tells nothing."""
    files = {f"{mount_path(file.claim)}/{file.path}": file.field for file in files_of(spec)}
    return diagnose(log, exit_code=ended.exit_code, files=files)


def diagnosis_of_message(message: str) -> Diagnosis | None:
    """What the container runtime says of a container that it could not start."""
    return diagnose(message, exit_code=0, files={})


def diagnosis_of_status(status: Mapping[str, Any], ended: Termination) -> Diagnosis | None:
    """What the stored status says of this very end, so that its log is read once whoever leads; None where it speaks of
    another."""
    last = status.get("lastFailure")
    if not isinstance(last, Mapping) or (last.get("time"), last.get("exitCode")) != (
        ended.finished_at,
        ended.exit_code,
    ):
        return None
    try:
        return Diagnosis(
            reason=Reason(str(last.get("reason"))),
            message=str(last["message"]),
            line=str(last.get("line") or ""),
            remedy=str(last.get("remedy") or ""),
        )
    except (ValueError, KeyError):
        return None


def _was_too_slow(ended: Termination, *, startup_timeout_sec: int) -> bool:
    """Told to stop when its time was up, not before."""
    if not ended.started_at or not ended.finished_at or ended.exit_code not in _STOPPED_BY_SIGNAL:
        return False
    lasted = (parse_time(ended.finished_at) - parse_time(ended.started_at)).total_seconds()
    return max(1, startup_timeout_sec - _PROBE_SLACK_SEC) <= lasted <= startup_timeout_sec + _STOP_SLACK_SEC


def _out_of_memory(model: LlamaModel, plan: Plan) -> Diagnosis:
    limits = (model.spec.resources.limits if model.spec.resources else None) or {}
    limit = f" of {limits['memory']}" if "memory" in limits else ""
    needed = ""
    if plan.estimate is not None:
        need = host_need(plan.estimate.host, mapped=is_mapped(plan.command))
        needed = f"; it needs about {shown_size(need)}, as estimated"
    return Diagnosis(
        reason=Reason.OUT_OF_MEMORY,
        message=f"killed for going over its memory limit{limit}{needed}",
        remedy="raise spec.resources.limits.memory",
    )


def tail(message: str, *, lines: int = 8, characters: int = 1024) -> str:
    """The last lines that say something."""
    kept = [line.rstrip() for line in message.splitlines() if line.strip()]
    return "\n".join(kept[-lines:])[-characters:]
