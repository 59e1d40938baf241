"""On which nodes pods of a model run: spread, or together where one node at a time can mount their volume."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.claims import Reach
from llamamodel_operator.core.objects.names import selector

__all__ = ["affinity", "topology_spread"]

_NODE = "kubernetes.io/hostname"


def affinity(spec: LlamaModelSpec, *, name: str, reach: Reach) -> dict[str, Any] | None:
    """The user's, and where a node at a time mounts the volume, that pods go where others of the model are.

    Without that a new pod may come to another node, and wait for the volume until the old one is gone, which in a
    rollout without a gap waits for the new one. The first pod finds no other, and may go anywhere: Kubernetes lets a
    pod that meets its own rule begin.
    """
    if reach is not Reach.ONE_NODE:
        return spec.affinity
    given = spec.affinity or {}
    pods = given.get("podAffinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    together = {"topologyKey": _NODE, "labelSelector": {"matchLabels": selector(name)}}
    return {**given, "podAffinity": {**pods, required: [*(pods.get(required) or ()), together]}}


def topology_spread(spec: LlamaModelSpec, *, name: str, reach: Reach) -> list[dict[str, Any]] | None:
    """The user's, else over nodes where there are some with room. The same for any number of replicas, so that scaling
    rolls no pod."""
    if spec.topology_spread_constraints is not None or reach is not Reach.ANYWHERE:
        return spec.topology_spread_constraints
    return [
        {
            "maxSkew": 1,
            "topologyKey": _NODE,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(name)},
            "matchLabelKeys": ["pod-template-hash"],
        }
    ]
