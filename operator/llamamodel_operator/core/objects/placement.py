"""On which nodes pods of a model run: spread, or together where one node at a time can mount their volume."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.claims import Reach
from llamamodel_operator.core.objects.names import selector

__all__ = ["affinity", "topology_spread"]

_NODE = "kubernetes.io/hostname"


def affinity(spec: LlamaModelSpec, *, name: str, reach: Reach) -> dict[str, Any] | None:
    """The user's, and where a node at a time mounts the volume, that pods rather go where others of the model are: on
    other nodes they wait for it. Not more than rather, for the others may be on a node that is down or full."""
    if reach is not Reach.ONE_NODE:
        return spec.affinity
    given = spec.affinity or {}
    pods = given.get("podAffinity") or {}
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    term = {"topologyKey": _NODE, "labelSelector": {"matchLabels": selector(name)}}
    together = {"weight": 100, "podAffinityTerm": term}
    return {**given, "podAffinity": {**pods, preferred: [*(pods.get(preferred) or ()), together]}}


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
