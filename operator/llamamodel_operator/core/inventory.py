"""What GPUs nodes have, as labels, resources and devices of nodes say, and which nodes a LlamaModel may run on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = [
    "GpuMemory",
    "MemorySource",
    "NodeGpus",
    "at_least",
    "can_be_chosen",
    "gpu_memory",
    "matching_nodes",
    "node_of",
    "why_not",
]

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class NodeGpus:
    """What of a node decides which models it can run.

    Attributes:
        name: of the node.
        labels: all of them, since a selector may ask for any.
        taints: as the API server has them.
        allocatable: number of each extended resource that the node has, free or not.
        device_memory: bytes of the smallest device for an extended resource, as ResourceSlices say; see `devices.py`.
        unschedulable: it is cordoned.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    allocatable: Mapping[str, int] = field(default_factory=dict)
    device_memory: Mapping[str, int] = field(default_factory=dict)
    unschedulable: bool = False


class MemorySource(StrEnum):
    """Where the figure comes from, or why there is none."""

    SPEC = "spec"
    LABEL = "label"
    DEVICE = "device"
    """A ResourceSlice of the node."""
    SHARED = "shared"
    """Pods share a GPU: how much of it one gets is not known."""
    UNKNOWN = "unknown"
    """Nothing says it."""


@dataclass(frozen=True, kw_only=True)
class GpuMemory:
    """Memory of each GPU of a node.

    Attributes:
        size_bytes: None where it is not known.
        label: that says it; empty where none does.
    """

    size_bytes: int | None
    source: MemorySource
    label: str = ""


def node_of(raw: Mapping[str, Any]) -> NodeGpus:
    """From a Node as the API server has it.

    Capacity counts too: while a device plugin restarts, allocatable is 0 for a moment.
    """
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    found: dict[str, int] = {}
    for amounts in (status.get("capacity"), status.get("allocatable")):
        for name, amount in (amounts or {}).items():
            if _is_extended(name) and (number := _count(amount)) > found.get(name, 0):
                found[name] = number
    # A cordon is no reason to change a verdict: the taint that goes with it is left out, and the field tells of it.
    taints = (dict(taint) for taint in spec.get("taints") or () if taint.get("key") not in _PASSING_TAINTS)
    return NodeGpus(
        name=metadata.get("name", ""),
        labels=dict(metadata.get("labels") or {}),
        taints=tuple(taints),
        allocatable=found,
        unschedulable=bool(spec.get("unschedulable")),
    )


_PASSING_TAINTS = frozenset(
    {
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
    }
)
"""Taints that come and go by themselves. Whether a model fits a node does not depend on how the node feels."""


def _is_extended(name: str) -> bool:
    """Kubernetes' own resources have no domain, or its own."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


def _count(amount: object) -> int:
    try:
        return int(parse_quantity(str(amount)))
    except (ValueError, ArithmeticError):
        return 0


def gpu_memory(node: NodeGpus, spec: LlamaModelSpec) -> GpuMemory:
    """Memory of each GPU that a pod of the model gets on this node.

    `spec.gpu.memory` wins over the labels, and over what they say of sharing: who writes it knows what a pod gets.
    Where labels say nothing, ResourceSlices may.
    """
    if spec.gpu is None:
        return GpuMemory(size_bytes=None, source=MemorySource.UNKNOWN)
    if spec.gpu.memory is not None:
        return GpuMemory(size_bytes=int(parse_quantity(spec.gpu.memory)), source=MemorySource.SPEC)
    resource = spec.gpu.resource_name
    if _is_shared(node, resource):
        return GpuMemory(size_bytes=None, source=MemorySource.SHARED)
    label = _nvidia_label(resource)
    if label and (size := _mebibytes(node.labels.get(label))):
        return GpuMemory(size_bytes=size, source=MemorySource.LABEL, label=label)
    if resource.startswith("amd.com/") and (found := _amd(node.labels)):
        name, size = found
        return GpuMemory(size_bytes=size, source=MemorySource.LABEL, label=name)
    if size := node.device_memory.get(resource):
        return GpuMemory(size_bytes=size, source=MemorySource.DEVICE)
    return GpuMemory(size_bytes=None, source=MemorySource.UNKNOWN)


def can_be_chosen(memory: GpuMemory, resource: str) -> bool:
    """Whether nodes can be chosen by the label that says this."""
    return memory.source is MemorySource.LABEL and memory.label in (_nvidia_label(resource), _AMD_LABEL)


def at_least(resource: str, least_bytes: int) -> tuple[dict[str, Any], ...]:
    """The expressions of a node affinity that hold for nodes whose label says at least so much; empty where no label
    can be asked.

    NVIDIA's labels are numbers, in MiB; Gt is strictly more. AMD's are text, and whole GiB: all that are too small are
    named, so that sizes that nobody has seen yet are judged rightly too.
    """
    if label := _nvidia_label(resource):
        return ({"key": label, "operator": "Gt", "values": [str(-(-least_bytes // _MIB) - 1)]},)
    if not resource.startswith("amd.com/"):
        return ()
    too_small = [f"{size}G" for size in range(1, -(-least_bytes // _GIB))]
    known = {"key": _AMD_LABEL, "operator": "Exists"}
    return (known, {"key": _AMD_LABEL, "operator": "NotIn", "values": too_small}) if too_small else (known,)


def _nvidia_label(resource: str) -> str:
    """The label that says in MiB what each GPU of this resource has; empty where it is none of NVIDIA's.

    NVIDIA's GPU feature discovery: nvidia.com/gpu.memory, and for each kind of MIG device (`mig.strategy: mixed`, where
    it is a resource of its own) nvidia.com/mig-1g.10gb.memory. With `single`, gpu.memory is that of the MIG devices.
    """
    domain, _, name = resource.partition("/")
    if domain == "nvidia.com" and (name == "gpu" or _MIG.fullmatch(name)):
        return f"{resource}.memory"
    return ""


_MIG = re.compile("mig-[0-9][a-z0-9.+-]*")
_AMD_LABEL = "amd.com/gpu.vram"


def _is_shared(node: NodeGpus, resource: str) -> bool:
    """Whether several pods get the same device: time-slicing and MPS, as GPU feature discovery says.

    Renamed resources (`renameByDefault`) end in .shared.
    """
    plain = resource.removesuffix(".shared")
    strategy = node.labels.get(f"{plain}.sharing-strategy", "none")
    replicas = _count(node.labels.get(f"{plain}.replicas", "1"))
    return plain != resource or strategy not in ("", "none") or replicas > 1


def _mebibytes(text: str | None) -> int | None:
    return int(text) * _MIB if text and re.fullmatch("[1-9][0-9]{0,11}", text) else None


def _amd(labels: Mapping[str, str]) -> tuple[str, int] | None:
    """AMD's node labeller says whole GiB, with a G. Older versions count the GPUs of each size in a label of its own:
    of several sizes the smallest holds, since nobody knows which one a pod gets."""
    for name in (_AMD_LABEL, "beta.amd.com/gpu.vram"):
        if found := re.fullmatch("([1-9][0-9]{0,5})G", labels.get(name, "")):
            return name, int(found[1]) * _GIB
    counted = {
        name: int(found[1]) * _GIB
        for name in labels
        if (found := re.fullmatch(r"(?:beta\.)?amd\.com/gpu\.vram\.([1-9][0-9]{0,5})G", name))
    }
    return min(counted.items(), key=lambda item: item[1]) if counted else None


def matching_nodes(nodes: Iterable[NodeGpus], spec: LlamaModelSpec) -> tuple[NodeGpus, ...]:
    """The nodes that the scheduler may choose, by what hardly ever changes: GPUs, labels, taints. Whether they are
    free, cordoned or ready at the moment does not count."""
    return tuple(node for node in nodes if not why_not(node, spec))


def why_not(node: NodeGpus, spec: LlamaModelSpec) -> str:
    """Why no pod of the model can ever run on this node; empty where one can."""
    if spec.gpu is None:
        return "no GPU is asked for"
    has = node.allocatable.get(spec.gpu.resource_name, 0)
    if has < spec.gpu.count:
        return f"has {has} {spec.gpu.resource_name}"
    for key, value in (spec.node_selector or {}).items():
        if node.labels.get(key) != value:
            return f"lacks the label {key}={value} of spec.nodeSelector"
    if not _affinity_takes(spec.affinity or {}, node):
        return "does not meet spec.affinity.nodeAffinity"
    for taint in node.taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, spec.tolerations or ()):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"has the taint {taint.get('key')}{value}:{taint['effect']}, which spec.tolerations does not name"
    return ""


def _affinity_takes(affinity: Mapping[str, Any], node: NodeGpus) -> bool:
    """Required node affinity: one of the terms must hold, and of it everything. An empty term holds for no node.

    Kubernetes: component-helpers, scheduling/corev1/nodeaffinity.
    """
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term_takes(term or {}, node) for term in required.get("nodeSelectorTerms") or ())


def _term_takes(term: Mapping[str, Any], node: NodeGpus) -> bool:
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not labels and not fields:
        return False
    return all(_expression_takes(expression, node.labels) for expression in labels) and all(
        _expression_takes(expression, {"metadata.name": node.name}) for expression in fields
    )


def _expression_takes(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    found = labels.get(str(expression.get("key")))
    values: Sequence[Any] = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case ("Gt" | "Lt") as operator:
            if found is None or len(values) != 1 or not (_is_integer(found) and _is_integer(str(values[0]))):
                return False
            return int(found) > int(values[0]) if operator == "Gt" else int(found) < int(values[0])
    return False


def _is_integer(text: str) -> bool:
    return re.fullmatch("[+-]?[0-9]{1,19}", text) is not None


def _tolerated(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Kubernetes: core/v1, Toleration.ToleratesTaint. A key that is empty stands for all, with Exists."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key = toleration.get("key") or ""
    operator = toleration.get("operator") or "Equal"
    if key and key != taint.get("key"):
        return False
    if operator == "Exists":
        return True
    return bool(key) and operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or "")
