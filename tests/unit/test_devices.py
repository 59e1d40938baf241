"""What ResourceSlices say of GPUs, and which extended resources DeviceClasses make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from llamamodel_operator.core.devices import DeviceClass, class_of, slice_of, with_devices
from llamamodel_operator.core.inventory import GpuMemory, MemorySource, NodeGpus, gpu_memory

from .builders import a_model

GIB = 1 << 30
NVIDIA, AMD = "gpu.nvidia.com", "gpu.amd.com"


def device(memory: str | None = "24Gi", *, kind: str = "gpu", **more: Any) -> dict[str, Any]:
    """As NVIDIA's driver lists them; more attributes by their names."""
    extra = {name: {"string": value} for name, value in more.items()}
    found = {"name": "x", "attributes": {"type": {"string": kind}, "uuid": {"string": "GPU-1"}, **extra}}
    return found if memory is None else {**found, "capacity": {"memory": {"value": memory}, "cores": {"value": "7"}}}


def a_slice(
    *devices: Mapping[str, Any], node: str = "a", driver: str = NVIDIA, generation: int = 1, of: int = 1
) -> dict[str, Any]:
    pool = {"name": node, "generation": generation, "resourceSliceCount": of}
    return {"spec": {"nodeName": node, "driver": driver, "pool": pool, "devices": list(devices)}}


def a_class(
    *expressions: str, resource: str | None = "nvidia.com/gpu", name: str = NVIDIA, created: str = "12:00:00"
) -> dict[str, Any]:
    spec: dict[str, Any] = {"selectors": [{"cel": {"expression": expression}} for expression in expressions]}
    if resource:
        spec["extendedResourceName"] = resource
    return {"metadata": {"name": name, "creationTimestamp": f"2026-01-01T{created}Z"}, "spec": spec}


WHOLE = a_class(f"device.driver == '{NVIDIA}' && device.attributes['{NVIDIA}'].type == 'gpu'")
"""The class that NVIDIA's driver comes with."""


def known(
    *slices: Mapping[str, Any],
    classes: Iterable[Mapping[str, Any]] = (WHOLE,),
    plugin: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> NodeGpus | None:
    """The node a, with those resources of a device plugin; None where it has no GPUs."""
    node = NodeGpus(name="a", allocatable=plugin or {}, labels=labels or {})
    found = with_devices(
        [node],
        slices=list(filter(None, map(slice_of, slices))),
        classes=list(filter(None, map(class_of, classes))),
    )
    return found[0] if found else None


def memory(node: NodeGpus | None, resource: str = "nvidia.com/gpu") -> GpuMemory:
    assert node is not None
    return gpu_memory(node, a_model().with_gpu(resource=resource).build().spec)


def test_devices_of_the_class_that_stands_for_the_resource_count_and_say_their_memory() -> None:
    found = known(a_slice(device(), device()))
    assert found is not None
    assert found.allocatable == {"nvidia.com/gpu": 2}
    assert memory(found) == GpuMemory(size_bytes=24 * GIB, source=MemorySource.DEVICE)


def test_of_devices_that_differ_the_smallest_holds() -> None:
    assert memory(known(a_slice(device("80Gi"), device("24Gi"), device("48Gi")))).size_bytes == 24 * GIB


def test_partitions_are_no_whole_gpus() -> None:
    mig = [device("10Gi", kind="mig", profile="1g.10gb"), device("10Gi", kind="mig", profile="1g.10gb")]
    found = known(a_slice(device("80Gi"), *mig))
    assert found is not None
    assert found.allocatable == {"nvidia.com/gpu": 1}
    assert memory(found).size_bytes == 80 * GIB


def test_partitions_count_where_a_class_asks_for_them() -> None:
    profile = a_class(
        f'device.driver=="{NVIDIA}"',
        f"device.attributes['{NVIDIA}'].type == 'mig' && device.attributes['{NVIDIA}'].profile == '1g.10gb'",
        resource="nvidia.com/mig-1g.10gb",
        name="mig",
    )
    mig = [device("10Gi", kind="mig", profile="1g.10gb"), device("40Gi", kind="mig", profile="4g.40gb")]
    found = known(a_slice(device("80Gi"), *mig), classes=[WHOLE, profile])
    assert found is not None
    assert found.allocatable == {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 1}
    assert memory(found, "nvidia.com/mig-1g.10gb").size_bytes == 10 * GIB


def test_amds_class_takes_partitions_as_well_so_the_smaller_holds() -> None:
    amd = a_class(f"device.driver == '{AMD}'", resource="amd.com/gpu", name=AMD)
    raw = a_slice(device("192Gi", kind="amdgpu"), device("24Gi", kind="amdgpu-partition"), driver=AMD)
    assert memory(known(raw, classes=[amd]), "amd.com/gpu").size_bytes == 24 * GIB


@pytest.mark.parametrize(
    ("resource", "driver", "kind"), [("nvidia.com/gpu", NVIDIA, "gpu"), ("amd.com/gpu", AMD, "amdgpu")]
)
def test_where_a_device_plugin_gives_out_gpus_the_whole_ones_say_their_memory(
    resource: str, driver: str, kind: str
) -> None:
    raw = a_slice(device("24Gi", kind=kind), device("10Gi", kind="part"), driver=driver)
    found = known(raw, classes=(), plugin={resource: 1})
    assert found is not None
    assert found.allocatable == {resource: 1}
    assert memory(found, resource) == GpuMemory(size_bytes=24 * GIB, source=MemorySource.DEVICE)


def test_a_label_wins_and_so_does_what_it_says_of_sharing() -> None:
    labels = {"nvidia.com/gpu.memory": "23034"}
    assert memory(known(a_slice(device()), labels=labels)).source is MemorySource.LABEL
    shared = known(a_slice(device()), plugin={"nvidia.com/gpu": 1}, labels={"nvidia.com/gpu.replicas": "4"})
    assert memory(shared).source is MemorySource.SHARED


def test_a_plugin_that_offers_more_than_there_are_devices_shares_them() -> None:
    assert memory(known(a_slice(device()), plugin={"nvidia.com/gpu": 4})).source is MemorySource.UNKNOWN


@pytest.mark.parametrize(
    "unknown",
    [
        device(None),
        device("0"),
        device("much"),
        {**device(), "allowMultipleAllocations": True},
    ],
)
def test_what_one_device_does_not_say_is_unknown(unknown: dict[str, Any]) -> None:
    found = known(a_slice(device(), unknown))
    assert found is not None
    assert found.allocatable == {"nvidia.com/gpu": 2}
    assert memory(found).source is MemorySource.UNKNOWN


def test_names_may_have_their_domain() -> None:
    qualified = {
        "attributes": {f"{NVIDIA}/type": {"string": "gpu"}, "other.com/type": {"string": "mig"}},
        "capacity": {f"{NVIDIA}/memory": {"value": "24Gi"}},
    }
    assert memory(known(a_slice(qualified))).size_bytes == 24 * GIB


@pytest.mark.parametrize(
    "raw",
    [
        {"spec": {"driver": NVIDIA, "allNodes": True, "pool": {"name": "p"}, "devices": [device()]}},
        {"spec": {"driver": NVIDIA, "nodeSelector": {"nodeSelectorTerms": []}, "pool": {"name": "p"}}},
    ],
)
def test_devices_of_no_single_node_are_passed_over(raw: dict[str, Any]) -> None:
    assert slice_of(raw) is None


def test_only_the_newest_generation_of_a_pool_counts_once_all_of_it_is_there() -> None:
    old = a_slice(device("24Gi"))
    first = a_slice(device("80Gi"), generation=2, of=2)
    second = a_slice(generation=2, of=2)  # counters alone
    assert known(old, first) is None
    assert memory(known(old, first, second)).size_bytes == 80 * GIB


@pytest.mark.parametrize(
    "classes",
    [
        [],
        [a_class(f"device.driver == '{NVIDIA}'", resource=None)],
        [a_class(f"device.driver == '{AMD}'")],
        [a_class(f"device.driver == '{NVIDIA}' && device.capacity['{NVIDIA}'].memory.compareTo(quantity('40Gi')) > 0")],
        [a_class(f"device.driver == '{NVIDIA}' || true")],
        [a_class(f"device.attributes['{NVIDIA}'].uuid == 'GPU-1'")],
        [WHOLE, a_class("true", name="newer", created="13:00:00")],
    ],
)
def test_without_a_class_for_the_resource_that_is_understood_devices_are_nobodys(
    classes: list[dict[str, Any]],
) -> None:
    assert known(a_slice(device()), classes=classes) is None


def test_of_two_classes_the_newer_counts_and_of_equally_old_ones_the_first_by_name() -> None:
    def wanted(*classes: dict[str, Any]) -> str:
        found = known(a_slice(device("80Gi", kind="x"), device("24Gi", kind="y")), classes=classes)
        return str((memory(found).size_bytes or 0) // GIB)

    def of(kind: str, **more: str) -> dict[str, Any]:
        return a_class(f"device.attributes['{NVIDIA}'].type == '{kind}'", **more)

    assert wanted(of("x", name="b"), of("y", name="a", created="13:00:00")) == "24"
    assert wanted(of("x", name="b"), of("y", name="a")) == wanted(of("y", name="a"), of("x", name="b")) == "24"


def test_nodes_without_gpus_are_not_kept_and_the_others_are_sorted() -> None:
    nodes = [NodeGpus(name=name, allocatable={"x.com/gpu": 1} if name != "cpu" else {}) for name in ("b", "cpu", "a")]
    assert [node.name for node in with_devices(nodes, slices=(), classes=())] == ["a", "b"]


@pytest.mark.parametrize(
    "raw", [{}, {"spec": {}}, {"spec": {"nodeName": "a"}}, {"spec": {"nodeName": "a", "devices": [{}]}}]
)
def test_nothing_is_too_bare(raw: dict[str, Any]) -> None:
    assert known(raw) is None
    assert class_of(raw) is None


def test_a_class_without_selectors_takes_every_device() -> None:
    assert class_of(a_class()) == DeviceClass(
        name=NVIDIA, created="2026-01-01T12:00:00Z", resource="nvidia.com/gpu", wanted=frozenset()
    )
