"""The document that ``status -o json`` prints, the same for every engine."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .instance import Instance
from .state import Engine, Mode

__all__ = ["ComponentStatus", "NodeStatus", "Status", "nodes_from_list", "stopped"]


@dataclass(frozen=True, kw_only=True)
class ComponentStatus:
    pid: int
    alive: bool
    log: str


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    name: str
    ready: bool
    gpus: int
    """Allocatable nvidia.com/gpu."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Paths are absolute; those of a stopped cluster say where things would be."""

    name: str
    state: Literal["running", "stopped", "broken"]
    engine: Engine | None
    mode: Mode | None
    problem: str = ""
    """Why the state is ``broken``."""
    server: str = ""
    kubeconfig: Path
    nodes: list[NodeStatus] = field(default_factory=list)
    components: dict[str, ComponentStatus] = field(default_factory=dict)
    models_host_dir: Path
    models_node_path: Path
    """``models_host_dir`` as a hostPath volume on the node names it."""
    audit_log: Path
    bin_dir: str
    """Holds kubectl, helm and the rest; empty where no Go is there to tell."""

    def document(self) -> dict[str, Any]:
        """JSON-ready, with the keys in camel case."""
        return {_camel(key): str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def stopped(instance: Instance, *, bin_dir: str) -> Status:
    """The status of a cluster that is not there."""
    return Status(
        name=instance.name,
        state="stopped",
        engine=None,
        mode=None,
        kubeconfig=instance.kubeconfig,
        models_host_dir=instance.models_dir,
        models_node_path=instance.models_dir,
        audit_log=instance.audit_log,
        bin_dir=bin_dir,
    )


def nodes_from_list(document: dict[str, Any] | None) -> list[NodeStatus]:
    """Read a Kubernetes NodeList."""
    nodes = []
    for item in (document or {}).get("items", []):
        status = item.get("status", {})
        conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
        nodes.append(
            NodeStatus(
                name=item["metadata"]["name"],
                ready=conditions.get("Ready") == "True",
                gpus=int(status.get("allocatable", {}).get("nvidia.com/gpu", "0")),
            )
        )
    return nodes


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)
