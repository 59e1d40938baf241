"""How a container ended, in one word and in a sentence."""

from __future__ import annotations

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.observed import Termination
from llamamodel_operator.core.times import parse_time

__all__ = ["failure_reason", "failure_sentence", "tail"]

_PROBE_SLACK_SEC = 4
"""The last failing probe comes a period (3 s at most) before the timeout is over; times have whole seconds."""
_STOP_SLACK_SEC = 60
"""The grace period of 30 s, and what a busy node takes."""
_STOPPED_BY_SIGNAL = frozenset({0, 137, 143})
"""Exit codes of a server that the kubelet told to stop: it obeyed, or was killed after the grace period."""


def failure_reason(ended: Termination, *, startup_timeout_sec: int) -> Reason:
    """OutOfMemory, StartupTimeout (told to stop when its time was up, not before), or CrashLoop."""
    if ended.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY
    if ended.started_at and ended.finished_at and ended.exit_code in _STOPPED_BY_SIGNAL:
        lasted = (parse_time(ended.finished_at) - parse_time(ended.started_at)).total_seconds()
        if max(1, startup_timeout_sec - _PROBE_SLACK_SEC) <= lasted <= startup_timeout_sec + _STOP_SLACK_SEC:
            return Reason.STARTUP_TIMEOUT
    return Reason.CRASH_LOOP


def failure_sentence(reason: Reason, ended: Termination, model: LlamaModel) -> str:
    """What happened and what to do."""
    match reason:
        case Reason.OUT_OF_MEMORY:
            limits = (model.spec.resources.limits if model.spec.resources else None) or {}
            limit = f" of {limits['memory']}" if "memory" in limits else ""
            return f"killed for going over its memory limit{limit}: raise spec.resources.limits.memory"
        case Reason.STARTUP_TIMEOUT:
            seconds = model.spec.settled_startup_timeout_sec
            return f"not ready within {seconds} s of its start, restarted: raise spec.startupTimeoutSec"
        case _:
            said = tail(ended.message, lines=1) or ended.reason or "the container wrote nothing"
            return f"llama-server ended with exit code {ended.exit_code}: {said}"


def tail(message: str, *, lines: int = 8, characters: int = 1024) -> str:
    """The last lines that say something."""
    kept = [line.rstrip() for line in message.splitlines() if line.strip()]
    return "\n".join(kept[-lines:])[-characters:]
