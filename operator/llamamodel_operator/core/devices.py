"""What GPUs ResourceSlices list, and which extended resources DeviceClasses make of them (DRA).

Sources: Kubernetes' resource.k8s.io/v1, KEP-5004 (extended resources by DRA), NVIDIA's driver gpu.nvidia.com and AMD's
gpu.amd.com.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.core.inventory import NodeGpus

__all__ = ["DeviceClass", "DeviceSlice", "Devices", "class_of", "slice_of", "with_devices"]

Attributes = frozenset[tuple[str, str]]
"""The driver, and attributes by their qualified names, such as gpu.nvidia.com/type."""

_ASKED_FOR = ("type", "profile", "partitionProfile", "productName")
"""Attributes that are kept: those by which classes tell whole GPUs, MIG devices and partitions apart."""

_WHOLE: Mapping[str, Attributes] = {
    "nvidia.com/gpu": frozenset({("driver", "gpu.nvidia.com"), ("gpu.nvidia.com/type", "gpu")}),
    "amd.com/gpu": frozenset({("driver", "gpu.amd.com"), ("gpu.amd.com/type", "amdgpu")}),
}
"""The devices that a node's device plugin gives out for a resource."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Devices that are alike.

    Attributes:
        memory: bytes of each; None where the driver does not say, or several pods may get the same device.
    """

    attributes: Attributes
    memory: int | None
    number: int


@dataclass(frozen=True, kw_only=True)
class DeviceSlice:
    """What counts of a ResourceSlice.

    Attributes:
        pool: driver and name of the pool that it is a part of.
        generation: of the pool; slices of an older one no longer hold.
        slices: that the pool has.
    """

    node: str
    pool: tuple[str, str]
    generation: int
    slices: int
    devices: tuple[Devices, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """A DeviceClass that stands for an extended resource.

    Attributes:
        wanted: what its devices have; None where its selectors ask for something that is not evaluated here.
    """

    name: str
    created: str
    resource: str
    wanted: Attributes | None


def slice_of(raw: Mapping[str, Any]) -> DeviceSlice | None:
    """From a ResourceSlice as the API server has it; None for one whose devices are not those of a single node."""
    spec = raw.get("spec") or {}
    node, driver, pool = spec.get("nodeName"), spec.get("driver") or "", spec.get("pool") or {}
    if not node:
        return None
    found = Counter(_device(device, driver) for device in spec.get("devices") or ())
    return DeviceSlice(
        node=node,
        pool=(driver, pool.get("name") or ""),
        generation=pool.get("generation") or 0,
        slices=pool.get("resourceSliceCount") or 1,
        devices=tuple(
            Devices(attributes=attributes, memory=memory, number=number)
            for (attributes, memory), number in found.items()
        ),
    )


def _device(device: Mapping[str, Any], driver: str) -> tuple[Attributes, int | None]:
    attributes = {"driver": driver}
    for name, value in (device.get("attributes") or {}).items():
        domain, _, plain = name.rpartition("/")
        if plain in _ASKED_FOR and "string" in value:
            attributes[f"{domain or driver}/{plain}"] = value["string"]
    capacity = device.get("capacity") or {}
    memory = capacity.get("memory") or capacity.get(f"{driver}/memory") or {}
    shared = device.get("allowMultipleAllocations")
    return frozenset(attributes.items()), None if shared else _bytes(memory.get("value"))


def _bytes(amount: object) -> int | None:
    try:
        return int(parse_quantity(str(amount))) or None
    except (ValueError, ArithmeticError):
        return None


def class_of(raw: Mapping[str, Any]) -> DeviceClass | None:
    """From a DeviceClass as the API server has it; None for one that stands for no extended resource."""
    metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    if not spec.get("extendedResourceName"):
        return None
    return DeviceClass(
        name=metadata.get("name") or "",
        created=metadata.get("creationTimestamp") or "",
        resource=spec["extendedResourceName"],
        wanted=_wanted(
            [(selector.get("cel") or {}).get("expression") or "" for selector in spec.get("selectors") or ()]
        ),
    )


def _wanted(expressions: Iterable[str]) -> Attributes | None:
    """What selectors ask for, where that is nothing but a driver and attributes that are equal to a text: CEL is not
    evaluated, and the classes that drivers come with ask for no more."""
    wanted = set()
    for part in (part.strip() for expression in expressions for part in expression.split("&&")):
        if driver := _DRIVER.fullmatch(part):
            wanted.add(("driver", driver["value"]))
        elif (attribute := _ATTRIBUTE.fullmatch(part)) and attribute["name"] in _ASKED_FOR:
            wanted.add((f"{attribute['domain']}/{attribute['name']}", attribute["value"]))
        else:
            return None
    return frozenset(wanted)


_VALUE = r"""\s*==\s*(?P<q>['"])(?P<value>[^'"\\]*)(?P=q)"""
_DRIVER = re.compile(r"device\.driver" + _VALUE)
_ATTRIBUTE = re.compile(r"""device\.attributes\[(?P<d>['"])(?P<domain>[^'"\\]+)(?P=d)\]\.(?P<name>\w+)""" + _VALUE)


def with_devices(
    nodes: Iterable[NodeGpus], *, slices: Iterable[DeviceSlice], classes: Iterable[DeviceClass]
) -> tuple[NodeGpus, ...]:
    """The nodes that have GPUs, by name, with what ResourceSlices say of them.

    Where a node has a resource by its device plugin, that one gives the GPUs out; else the devices of the DeviceClass
    that stands for the resource count.
    """
    devices = _by_node(slices)
    wanted = _by_resource(classes)
    known = (_with_devices(node, devices.get(node.name, ()), wanted) for node in nodes)
    return tuple(sorted((node for node in known if node.allocatable), key=lambda node: node.name))


def _with_devices(node: NodeGpus, devices: Sequence[Devices], wanted: Mapping[str, Attributes | None]) -> NodeGpus:
    if not devices:
        return node
    counts, memory = dict(node.allocatable), {}
    for resource, attributes in _WHOLE.items():
        number, size = _of(devices, attributes)
        # A plugin that offers more than there are shares them.
        if size and 0 < node.allocatable.get(resource, 0) <= number:
            memory[resource] = size
    for resource, asked in wanted.items():
        if asked is None or resource in node.allocatable:
            continue
        number, size = _of(devices, asked)
        if number:
            counts[resource] = number
        if size:
            memory[resource] = size
    return replace(node, allocatable=counts, device_memory=memory)


def _of(devices: Sequence[Devices], wanted: Attributes) -> tuple[int, int | None]:
    """How many there are, and bytes of the smallest: nobody knows which one a pod gets. None where one does not say."""
    found = [alike for alike in devices if wanted <= alike.attributes]
    sizes = [alike.memory for alike in found if alike.memory is not None]
    smallest = min(sizes) if sizes and len(sizes) == len(found) else None
    return sum(alike.number for alike in found), smallest


def _by_node(slices: Iterable[DeviceSlice]) -> dict[str, list[Devices]]:
    """A pool counts as it is in its newest generation, once all of that is there."""
    pools: dict[tuple[str, str], list[DeviceSlice]] = defaultdict(list)
    for part in slices:
        pools[part.pool].append(part)
    found: dict[str, list[Devices]] = defaultdict(list)
    for parts in pools.values():
        newest = max(part.generation for part in parts)
        current = [part for part in parts if part.generation == newest]
        if len(current) >= current[0].slices:
            for part in current:
                found[part.node] += part.devices
    return found


def _by_resource(classes: Iterable[DeviceClass]) -> dict[str, Attributes | None]:
    """Of several classes for a resource the newest counts, of equally old ones the first by name."""
    by_name = sorted(classes, key=lambda one: one.name, reverse=True)
    return {one.resource: one.wanted for one in sorted(by_name, key=lambda one: one.created)}
