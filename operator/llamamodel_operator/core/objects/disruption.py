"""The PodDisruptionBudget: draining nodes takes one pod of a model at a time, where there are several."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.claims import Reach
from llamamodel_operator.core.objects.names import child_metadata, child_name, selector

__all__ = ["build_disruption_budget"]


def build_disruption_budget(model: LlamaModel, *, reach: Reach) -> dict[str, Any] | None:
    """None where it could keep a node from being drained for ever: with one replica, and where the volume ties all pods
    to the node that is drained.

    Pods that are not ready may always go: they serve nobody.
    """
    if model.spec.wanted_replicas < 2 or reach is not Reach.ANYWHERE:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(model),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(child_name(model.name))},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
