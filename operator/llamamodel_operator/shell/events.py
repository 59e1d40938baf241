"""Kubernetes Events: one when a LlamaModel becomes ready, stops being ready, or fails in another way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.labels import MANAGER
from llamamodel_operator.shell.client import EVENTS, ApiError, ClusterClient

__all__ = ["TransitionEvent", "transition_event"]

_log = logging.getLogger(__name__)

_QUIET = frozenset(
    {
        Reason.INSPECTING,
        Reason.STARTING,
        Reason.LOADING,
        Reason.ROLLING_OUT,
        Reason.VERIFYING,
        Reason.CLAIM_PENDING,
    }
)
"""Steps on the way that tell nobody anything new; the status shows them."""
_NORMAL = frozenset({Reason.READY, Reason.SUSPENDED, Reason.SCALED_TO_ZERO})


@dataclass(frozen=True, kw_only=True)
class TransitionEvent:
    """An Event about a LlamaModel."""

    body: Mapping[str, Any]

    async def send(self, client: ClusterClient) -> None:
        """Events are a courtesy: what cannot be sent is logged, and nothing else suffers."""
        try:
            await client.create(EVENTS, self.body)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, ApiError) and error.status == 409:
                return  # its name has the time in it: this very one was sent before
            _log.warning("an event could not be written: %s", str(error) or type(error).__name__)


def transition_event(
    metadata: Mapping[str, Any], *, before: Mapping[str, Any], after: Mapping[str, Any], now: datetime
) -> TransitionEvent | None:
    """The event for a changed Ready condition, or None where the change is only a step on the way."""
    reason = after.get("reason", "")
    stopped_being_ready = before.get("status") == "True" and after.get("status") != "True"
    if reason == before.get("reason") or (reason in _QUIET and not stopped_being_ready):
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
                "name": f"{metadata['name'][:220].rstrip('-.')}.{int(now.timestamp() * 1_000_000):x}",
                "namespace": metadata["namespace"],
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Normal" if reason in _NORMAL | _QUIET else "Warning",
            "reason": reason,
            "action": "Reconcile",
            "note": after.get("message", "").encode()[:1024].decode(errors="ignore"),
            "regarding": regarding,
            "reportingController": f"llamamodel.dev/{MANAGER}",
            "reportingInstance": MANAGER,
        }
    )
