"""Whether a request may wait for a model with no pod that takes it, for how long, and when it is worth another try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.status import Phase
from llamamodel_operator.core.gateway.errors import ApiError, model_loading, model_unavailable
from llamamodel_operator.core.gateway.routes import ServedModel

__all__ = ["WAIT_HEADER", "WaitLimits", "asked_wait_sec", "on_its_way", "retry_after_sec", "without_pod"]

WAIT_HEADER = "x-llamamodel-wait"
"""Of a request: seconds that it may wait at most; 0 for not at all."""

_SOON_SEC = 10
"""Where nobody knows how long it takes, or the model is in memory already."""
_LONGEST_RETRY_SEC = 600
_UNDER_WAY = frozenset(("", Phase.LOADING, Phase.UPDATING, Phase.READY))
"""Ready as well: a pod has gone, and the operator has not said so yet."""
_REASONS = frozenset(Reason)


@dataclass(frozen=True, kw_only=True)
class WaitLimits:
    """How long, and how many.

    Attributes:
        longest_sec: that a request waits; 0: none does.
        per_model: requests that may wait for one LlamaModel.
        total: requests that may wait at all: each keeps its body in memory.
        quiet_sec: after which a stream begins with a comment. Earlier ends of a wait have a status of their own.
        comment_sec: between two comments.
        again_sec: after which pods that could not take a request are asked again: the API server may never tell that
            one could not.
    """

    longest_sec: float = 30
    per_model: int = 64
    total: int = 256
    quiet_sec: float = 5
    comment_sec: float = 10
    again_sec: float = 1


def on_its_way(model: ServedModel) -> bool:
    """Whether a model will have a pod without anybody doing anything. One that is suspended, has failed or is blocked
    will not."""
    return model.phase in _UNDER_WAY or (model.progressing and model.phase != Phase.SUSPENDED)


def asked_wait_sec(header: str | None, *, longest_sec: float) -> float | None:
    """Seconds that a request may wait, at most `longest_sec`; None where its header is no number of seconds.

    Args:
        header: the value of `WAIT_HEADER`, where the request has it.
    """
    if header is None:
        return longest_sec
    try:
        seconds = float(header)
    except ValueError:
        return None
    return min(max(seconds, 0.0), longest_sec) if math.isfinite(seconds) else None


def retry_after_sec(model: ServedModel, *, now: datetime) -> int:
    """Seconds after which a model that is on its way may answer: what is left of the time that it may take to start,
    from 1 to 600."""
    if model.startup_deadline:
        left = math.ceil((datetime.fromisoformat(model.startup_deadline) - now).total_seconds())
    elif model.phase == Phase.PENDING:
        left = model.startup_timeout_sec or _SOON_SEC
    else:
        left = _SOON_SEC
    return min(max(left, 1), _LONGEST_RETRY_SEC)


def without_pod(model: ServedModel, *, name: str, now: datetime) -> ApiError:
    """Why no pod takes a request.

    Args:
        name: under which the client asked for the model.
    """
    if on_its_way(model):
        return model_loading(name, retry_after_sec=retry_after_sec(model, now=now))
    reason = Reason(model.reason) if model.reason in _REASONS else Reason.STARTING
    return model_unavailable(name, reason=reason, message=model.message)
