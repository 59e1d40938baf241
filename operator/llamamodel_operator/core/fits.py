"""Whether what a model takes fits the GPUs of the nodes that it may run on, and what to say where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamamodel_operator.api.conditions import ConditionStatus, Reason
from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.spec import Gpu, LlamaModelSpec
from llamamodel_operator.core.inventory import (
    GpuMemory,
    MemorySource,
    NodeGpus,
    can_be_chosen,
    gpu_memory,
    matching_nodes,
    why_not,
)
from llamamodel_operator.core.memory.advice import Change
from llamamodel_operator.core.memory.estimate import MemoryEstimate
from llamamodel_operator.core.sizes import shown_size

__all__ = ["Fits", "Room", "fits_in", "least_memory", "no_gpu", "not_estimated", "room_for"]

_MOST_NAMED = 3
"""Nodes, and pieces of advice, in a message."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """The GPUs that a model may get.

    Attributes:
        gpu: what the spec asks for.
        sizes: bytes per GPU of each matching node that says them, by the name of the node, the largest first.
        silent: names of matching nodes whose GPUs have an unknown size.
        shared: names of matching nodes whose GPUs are shared.
        given: bytes per GPU, where the spec says them.
        nodes_seen: whether nodes may be read.
        misses: why nodes that have such GPUs do not match, by the name of the node.
        by_device: names of the nodes whose sizes ResourceSlices say.
        by_label: whether all sizes come from a label that nodes can be chosen by.
    """

    gpu: Gpu
    sizes: tuple[tuple[str, int], ...] = ()
    silent: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    given: int | None = None
    nodes_seen: bool = True
    misses: tuple[tuple[str, str], ...] = ()
    by_device: frozenset[str] = frozenset()
    by_label: bool = False

    @property
    def largest(self) -> int | None:
        """Bytes per GPU where there are most; None where nobody knows."""
        return self.sizes[0][1] if self.sizes else self.given

    @property
    def smallest(self) -> int | None:
        """Bytes per GPU where there are least; None where nobody knows."""
        return self.sizes[-1][1] if self.sizes else self.given


def room_for(spec: LlamaModelSpec, gpu: Gpu, nodes: Sequence[NodeGpus] | None) -> Room:
    """The GPUs that pods of this spec may get."""
    given = int(parse_quantity(gpu.memory)) if gpu.memory is not None else None
    if nodes is None:
        return Room(gpu=gpu, given=given, nodes_seen=False)
    matching = matching_nodes(nodes, spec)
    found: list[tuple[NodeGpus, GpuMemory]] = [(node, gpu_memory(node, spec)) for node in matching]
    sizes = [(node.name, memory.size_bytes) for node, memory in found if memory.size_bytes is not None]
    names = {node.name for node in matching}
    return Room(
        gpu=gpu,
        sizes=tuple(sorted(sizes, key=lambda item: (-item[1], item[0]))),
        silent=tuple(sorted(node.name for node, memory in found if memory.source is MemorySource.UNKNOWN)),
        shared=tuple(sorted(node.name for node, memory in found if memory.source is MemorySource.SHARED)),
        given=given,
        misses=tuple(
            (node.name, why_not(node, spec))
            for node in sorted(nodes, key=lambda node: node.name)
            if node.name not in names and gpu.resource_name in node.allocatable
        ),
        by_device=frozenset(node.name for node, memory in found if memory.source is MemorySource.DEVICE),
        by_label=bool(sizes)
        and all(can_be_chosen(memory, gpu.resource_name) for _, memory in found if memory.size_bytes is not None),
    )


@dataclass(frozen=True, kw_only=True)
class Fits:
    """The condition MemoryFits.

    Attributes:
        available: bytes that each GPU has, where there are most; None where nobody knows.
        holds: it is known not to fit any of the nodes that it may run on, and there is one: Block holds it.
        findings: what is worth saying at admission too.
    """

    status: ConditionStatus
    reason: Reason
    message: str
    available: int | None = None
    holds: bool = False
    findings: tuple[Finding, ...] = ()


def _unknown(reason: Reason, message: str, *findings: Finding, available: int | None = None) -> Fits:
    return Fits(status=ConditionStatus.UNKNOWN, reason=reason, message=message, available=available, findings=findings)


def not_estimated(why: str) -> Fits:
    """Nothing is known of the files, or the header cannot be estimated."""
    return _unknown(Reason.NOT_ESTIMATED, f"there is no estimate: {why}")


def no_gpu(*, need: int, limit: int | None) -> Fits:
    """A model on the CPU: only its own memory limit can be too small.

    Args:
        need: bytes of the container that cannot be taken back.
        limit: the container's memory limit in bytes.
    """
    if limit is None:
        message = f"runs on the CPU and takes about {shown_size(need)} of memory; nodes are not compared with that"
        return _unknown(Reason.NO_GPU_ASKED_FOR, message)
    said = f"takes about {shown_size(need)} of memory, and the limit is {shown_size(limit)}"
    if need <= limit:
        return Fits(status=ConditionStatus.TRUE, reason=Reason.MEMORY_FITS, message=said)
    finding = _too_small("spec.resources.limits.memory", said, f"raise the limit to {shown_size(need)} at least")
    return Fits(
        status=ConditionStatus.FALSE,
        reason=Reason.MEMORY_TOO_SMALL,
        message=f"{said}: the server would be killed under load; {finding.suggestion}",
        findings=(finding,),
    )


def _too_small(field: str, message: str, suggestion: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code=FindingCode.MEMORY_TOO_SMALL,
        field=field,
        message=message,
        suggestion=suggestion,
    )


def fits_in(
    room: Room,
    *,
    estimate: MemoryEstimate,
    changes: Sequence[Change] = (),
    meanwhile: str = "",
    uncertain: str = "",
    kept: bool = False,
) -> Fits:
    """Whether one of the nodes has room.

    Args:
        room: what there is.
        estimate: of what was asked for.
        changes: with which it would fit, where it does not.
        meanwhile: how it runs although it does not fit; empty where it runs as asked for.
        uncertain: why the estimate may be wrong.
        kept: pods are kept to nodes that have room.
    """
    need = max(gpu.total for gpu in estimate.gpus)
    fraction = f"{shown_size(need)} per GPU"
    doubt = f"; the estimate is uncertain: {uncertain}" if uncertain else ""
    if room.given is not None:
        if need <= room.given:
            message = f"needs {fraction}, spec.gpu.memory says {shown_size(room.given)}{doubt}"
            return Fits(status=ConditionStatus.TRUE, reason=Reason.MEMORY_FITS, message=message, available=room.given)
        return _no(room, f"needs {fraction}, spec.gpu.memory says {shown_size(room.given)}", changes, meanwhile, doubt)
    fitting = [name for name, size in room.sizes if need <= size]
    if fitting:
        matching = len(room.sizes) + len(room.silent) + len(room.shared)
        has = _has(room, min(_MOST_NAMED, len(fitting)))
        more = " and others" if len(fitting) > _MOST_NAMED else ""
        message = f"needs {fraction}; {len(fitting)} of {_count(matching)} that match, with enough: {has}{more}{doubt}"
        if len(fitting) < matching and not kept:
            message += "; pods may be placed on the others too: spec.nodeSelector can keep them away"
        return Fits(status=ConditionStatus.TRUE, reason=Reason.MEMORY_FITS, message=message, available=room.largest)
    if unknown := _why_unknown(room, fraction):
        return unknown
    has = _has(room, _MOST_NAMED)
    more = f" and {len(room.sizes) - _MOST_NAMED} more with less or as much" if len(room.sizes) > _MOST_NAMED else ""
    return _no(room, f"needs {fraction}; the nodes that match have less: {has}{more}", changes, meanwhile, doubt)


def _has(room: Room, most: int) -> str:
    return ", ".join(
        f"{name} {shown_size(size)}" + (" (as its ResourceSlice says)" if name in room.by_device else "")
        for name, size in room.sizes[:most]
    )


def _no(room: Room, said: str, changes: Sequence[Change], meanwhile: str, doubt: str) -> Fits:
    advice = _advice(changes)
    finding = _too_small("spec.gpu", f"{said}{doubt}", advice)
    return Fits(
        status=ConditionStatus.FALSE,
        reason=Reason.MEMORY_TOO_SMALL,
        message=f"{said}{doubt}; {advice}" + (f"; {meanwhile}" if meanwhile else ""),
        available=room.largest,
        holds=bool(room.sizes),
        findings=(finding,),
    )


def _advice(changes: Sequence[Change]) -> str:
    if not changes:
        return "no change of the settings alone makes it fit: use GPUs with more memory, or a smaller quantization"
    said = [
        " and ".join(f"spec.{field}: {value}" for field, value in change.fields.items())
        + f" ({shown_size(max((gpu.total for gpu in change.estimate.gpus), default=0))})"
        for change in changes[:_MOST_NAMED]
    ]
    return "it would fit with " + ", or ".join(said)


def _why_unknown(room: Room, fraction: str) -> Fits | None:
    gpu = room.gpu
    asked = f"{gpu.count} {gpu.resource_name}"
    known = room.largest
    if not room.nodes_seen:
        return _unknown(
            Reason.NODES_NOT_VISIBLE,
            f"needs {fraction}; the operator may not read nodes (it has rights in its namespaces alone):"
            " set spec.gpu.memory to have it compared",
        )
    if room.shared:
        message = (
            f"needs {fraction}; pods share the GPUs of {_nodes(room.shared)} (time-slicing or MPS), so what one of them"
            " gets is not known"
        )
        suggestion = "set spec.gpu.memory to what a pod can count on, or use GPUs that are not shared"
        finding = Finding(
            severity=Severity.WARNING,
            code=FindingCode.GPU_SHARED,
            field="spec.gpu.resourceName",
            message=message,
            suggestion=suggestion,
        )
        return _unknown(Reason.GPU_SHARED, f"{message}: {suggestion}", finding, available=known)
    if room.silent:
        return _unknown(
            Reason.GPU_MEMORY_UNKNOWN,
            f"needs {fraction}; neither a label nor a ResourceSlice says how much memory the GPUs of"
            f" {_nodes(room.silent)} have: install GPU feature discovery, or set spec.gpu.memory",
            available=known,
        )
    if not room.sizes:
        near = "; ".join(f"{name} {why}" for name, why in room.misses[:_MOST_NAMED])
        return _unknown(
            Reason.NO_NODE_YET,
            f"needs {fraction}; no node with {asked} matches yet"
            + (f" ({near})" if near else "")
            + ": one that an autoscaler adds is compared when it is there",
        )
    return None


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _nodes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{'node' if len(names) == 1 else 'nodes'} {shown}{more}"


def least_memory(room: Room, need: int) -> int | None:
    """Bytes per GPU that the nodes must be chosen by: where some of those that match say that they have room, and
    others that they have not, or say nothing."""
    enough = sum(need <= size for _, size in room.sizes)
    others = len(room.sizes) + len(room.silent) - enough
    return need if room.by_label and enough and others else None
