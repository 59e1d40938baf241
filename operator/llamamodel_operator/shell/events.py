"""Kubernetes Events: one when a LlamaModel becomes ready, stops being ready, or fails in another way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.labels import MANAGER
from llamamodel_operator.shell.client import EVENTS, ApiError, ClusterClient

__all__ = ["TransitionEvent", "transition_event"]

_log = logging.getLogger(__name__)

_QUIET = frozenset(
    {
        Reason.STARTING,
        Reason.LOADING,
        Reason.ROLLING_OUT,
        Reason.CLAIM_PENDING,
    }
)
"""Steps on the way that tell nobody anything new; the status shows them."""
_NORMAL = frozenset({Reason.READY, Reason.SUSPENDED, Reason.SCALED_TO_ZERO})


@dataclass(frozen=True, kw_only=True)
class TransitionEvent:
    """An Event about a LlamaModel. Its name is made of what it tells, so that it is not told twice."""

    body: Mapping[str, Any]

    async def send(self, client: ClusterClient) -> None:
        """Events are a courtesy: what cannot be sent is logged, and nothing else suffers."""
        try:
            await client.create(EVENTS, self.body)
        except ApiError as error:
            if error.status != 409:
                _log.warning("an event could not be written: %s", error)


def transition_event(
    metadata: Mapping[str, Any], *, before: Mapping[str, Any], after: Mapping[str, Any], now: datetime
) -> TransitionEvent | None:
    """The event for a changed Ready condition, or None where the change is only a step on the way."""
    reason = after.get("reason", "")
    if reason == before.get("reason") or reason in _QUIET:
        return None
    regarding = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
    }
    return TransitionEvent(
        body={
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:220]}.{int(now.timestamp() * 1_000_000):x}",
                "namespace": metadata["namespace"],
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Normal" if reason in _NORMAL else "Warning",
            "reason": reason,
            "action": "Reconcile",
            "note": after.get("message", "")[:1024],
            "regarding": regarding,
            "reportingController": f"llamamodel.dev/{MANAGER}",
            "reportingInstance": MANAGER,
        }
    )
