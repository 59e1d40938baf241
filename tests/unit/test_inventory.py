"""What GPUs nodes have, and which nodes a model may run on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.inventory import GpuMemory, MemorySource, NodeGpus, at_least, gpu_memory, node_of, why_not

from .builders import ModelBuilder, a_model

MIB, GIB = 1 << 20, 1 << 30


def raw_node(
    *, labels: dict[str, str] | None = None, capacity: dict[str, object] | None = None, **spec: object
) -> dict[str, Any]:
    amounts = {"cpu": "8", "memory": "32Gi", "hugepages-2Mi": "0", **(capacity or {"nvidia.com/gpu": "1"})}
    return {
        "metadata": {"name": "a", "labels": labels or {}, "annotations": {"volatile": "x"}},
        "spec": spec,
        "status": {"capacity": amounts, "allocatable": amounts, "images": [{"names": ["x"]}], "conditions": []},
    }


def memory(labels: dict[str, str], *, resource: str = "nvidia.com/gpu", given: str | None = None) -> GpuMemory:
    gpu = {"resourceName": resource, **({"memory": given} if given else {})}
    return gpu_memory(NodeGpus(name="a", labels=labels), a_model().with_spec(gpu=gpu).build().spec)


@pytest.mark.parametrize(
    ("labels", "resource", "size"),
    [
        pytest.param({"nvidia.com/gpu.memory": "23034"}, "nvidia.com/gpu", 23034 * MIB, id="NVIDIA"),
        pytest.param(
            {
                "nvidia.com/gpu.memory": "23034",
                "nvidia.com/gpu.replicas": "1",
                "nvidia.com/gpu.sharing-strategy": "none",
            },
            "nvidia.com/gpu",
            23034 * MIB,
            id="not shared",
        ),
        pytest.param(
            {"nvidia.com/gpu.memory": "81559", "nvidia.com/mig-1g.10gb.memory": "9728"},
            "nvidia.com/mig-1g.10gb",
            9728 * MIB,
            id="MIG, mixed",
        ),
        pytest.param(
            {"nvidia.com/mig-1g.10gb.me.memory": "9728"}, "nvidia.com/mig-1g.10gb.me", 9728 * MIB, id="MIG with media"
        ),
        pytest.param({"amd.com/gpu.vram": "64G"}, "amd.com/gpu", 64 * GIB, id="AMD"),
        pytest.param({"beta.amd.com/gpu.vram": "16G"}, "amd.com/gpu", 16 * GIB, id="AMD beta"),
        pytest.param({"beta.amd.com/gpu.vram.16G": "1"}, "amd.com/gpu", 16 * GIB, id="AMD counted"),
        pytest.param(
            {"beta.amd.com/gpu.vram.64G": "1", "beta.amd.com/gpu.vram.16G": "1"},
            "amd.com/gpu",
            16 * GIB,
            id="AMD mixed",
        ),
    ],
)
def test_labels_say_what_each_gpu_has(labels: dict[str, str], resource: str, size: int) -> None:
    found = memory(labels, resource=resource)
    assert (found.size_bytes, found.source) == (size, MemorySource.LABEL)
    assert found.label in labels


@given(least=st.integers(1, 400 * GIB), has=st.integers(1, 400))
def test_an_affinity_holds_for_the_nodes_that_say_that_they_have_enough(least: int, has: int) -> None:
    for resource, key, label in (
        ("nvidia.com/gpu", "nvidia.com/gpu.memory", str(has * 1024)),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.memory", str(has * 1024)),
        ("amd.com/gpu", "amd.com/gpu.vram", f"{has}G"),
    ):
        spec = required({"matchExpressions": [*at_least(resource, least)]}).build().spec
        node = NodeGpus(name="a", labels={key: label}, allocatable={"nvidia.com/gpu": 1})
        assert (not why_not(node, spec)) == (has * GIB >= least)
        assert why_not(replace(node, labels={}), spec)


def test_without_a_label_that_can_be_asked_there_is_no_affinity() -> None:
    assert at_least("gpu.intel.com/xe", GIB) == ()


@pytest.mark.parametrize(
    ("labels", "resource"),
    [
        ({}, "nvidia.com/gpu"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.memory": ""}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.memory": "0"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.memory": "24Gi"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.memory": "9" * 63}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.memory": "81559"}, "nvidia.com/mig-1g.10gb"),
        ({"nvidia.com/gpu.memory": "24576"}, "amd.com/gpu"),
        ({"amd.com/gpu.vram": "lots"}, "amd.com/gpu"),
        ({"nvidia.com/gpu.memory": "24576"}, "gpu.intel.com/xe"),
    ],
)
def test_what_no_label_says_is_unknown(labels: dict[str, str], resource: str) -> None:
    assert memory(labels, resource=resource) == GpuMemory(size_bytes=None, source=MemorySource.UNKNOWN)


@pytest.mark.parametrize(
    ("labels", "resource"),
    [
        ({"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.replicas": "4"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.sharing-strategy": "mps"}, "nvidia.com/gpu"),
        ({}, "nvidia.com/gpu.shared"),
        ({"nvidia.com/mig-1g.10gb.replicas": "2"}, "nvidia.com/mig-1g.10gb"),
    ],
)
def test_of_a_gpu_that_pods_share_nobody_knows_what_one_gets(labels: dict[str, str], resource: str) -> None:
    labels = {f"{resource}.memory": "24576", "nvidia.com/gpu.memory": "24576", **labels}
    assert memory(labels, resource=resource).source is MemorySource.SHARED


def test_what_the_spec_says_wins_over_labels_and_over_sharing() -> None:
    labels = {"nvidia.com/gpu.memory": "24576", "nvidia.com/gpu.replicas": "4"}
    assert memory(labels, given="6Gi") == GpuMemory(size_bytes=6 * GIB, source=MemorySource.SPEC)


@pytest.mark.parametrize(
    ("capacity", "found"),
    [
        ({"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": 2}),
        ({"nvidia.com/gpu": "2", "attachable-volumes-aws-ebs": "39"}, {"nvidia.com/gpu": 2}),
        ({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "7"}, {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 7}),
        ({"nvidia.com/gpu": "many", "amd.com/gpu": "1"}, {"amd.com/gpu": 1}),
    ],
)
def test_extended_resources_are_counted(capacity: dict[str, object], found: dict[str, int]) -> None:
    node = node_of(raw_node(capacity=capacity))
    assert node.allocatable == found


@pytest.mark.parametrize("capacity", [{"cpu": "4"}, {"nvidia.com/gpu": "0"}, {"kubernetes.io/batteries": "3"}])
def test_what_is_no_extended_resource_is_not_counted(capacity: dict[str, object]) -> None:
    assert node_of(raw_node(capacity=capacity)).allocatable == {}


def test_a_device_plugin_that_restarts_takes_no_gpu_away() -> None:
    raw = raw_node()
    raw["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    node = node_of(raw)
    assert node.allocatable == {"nvidia.com/gpu": 1}


def test_a_heartbeat_changes_nothing() -> None:
    later = raw_node(labels={"gpu": "l4"})
    later["status"]["conditions"] = [{"type": "Ready", "lastHeartbeatTime": "2026-01-01T12:00:00Z"}]
    later["metadata"]["resourceVersion"] = "17"
    assert node_of(raw_node(labels={"gpu": "l4"})) == node_of(later)


def test_a_cordoned_node_or_one_that_is_not_ready_still_matches() -> None:
    taints = [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
    ]
    node = node_of(raw_node(unschedulable=True, taints=taints))
    assert node.unschedulable
    assert not why_not(node, a_model().with_gpu().build().spec)


def required(*terms: dict[str, Any]) -> ModelBuilder:
    rule = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}
    return a_model().with_gpu().with_spec(affinity=rule)


def label(operator: str, *values: str, key: str = "gpu") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


TAINT = {"key": "team", "value": "ml", "effect": "NoSchedule"}


def tolerating(**toleration: str) -> ModelBuilder:
    return a_model().with_gpu().with_spec(tolerations=[toleration])


@pytest.mark.parametrize(
    ("model", "labels", "taints", "matches"),
    [
        (a_model().with_gpu(), {}, [], True),
        (a_model().with_gpu(3), {}, [], False),
        (a_model().with_gpu(resource="amd.com/gpu"), {}, [], False),
        (a_model().with_gpu().with_spec(nodeSelector={"gpu": "l4"}), {"gpu": "l4"}, [], True),
        (a_model().with_gpu().with_spec(nodeSelector={"gpu": "l4"}), {"gpu": "t4"}, [], False),
        (a_model().with_gpu().with_spec(nodeSelector={"gpu": "l4"}), {}, [], False),
        (required(label("In", "l4", "t4")), {"gpu": "t4"}, [], True),
        (required(label("In", "l4")), {"gpu": "t4"}, [], False),
        (required(label("NotIn", "l4")), {"gpu": "t4"}, [], True),
        (required(label("NotIn", "l4")), {}, [], True),
        (required(label("NotIn", "l4")), {"gpu": "l4"}, [], False),
        (required(label("Exists")), {"gpu": ""}, [], True),
        (required(label("Exists")), {}, [], False),
        (required(label("DoesNotExist")), {}, [], True),
        (required(label("DoesNotExist")), {"gpu": "l4"}, [], False),
        (required(label("Gt", "10")), {"gpu": "11"}, [], True),
        (required(label("Gt", "10")), {"gpu": "10"}, [], False),
        (required(label("Gt", "10")), {"gpu": "many"}, [], False),
        (required(label("Gt", "10")), {}, [], False),
        (required(label("Lt", "10")), {"gpu": "9"}, [], True),
        (required(label("In", "no"), label("Exists")), {"gpu": "l4"}, [], True),
        (required({}), {"gpu": "l4"}, [], False),
        (required({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}), {}, [], True),
        (required({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}), {}, [], False),
        (a_model().with_gpu().with_spec(affinity={"podAntiAffinity": {}}), {}, [], True),
        (a_model().with_gpu(), {}, [TAINT], False),
        (a_model().with_gpu(), {}, [{**TAINT, "effect": "PreferNoSchedule"}], True),
        (a_model().with_gpu(), {}, [{**TAINT, "effect": "NoExecute"}], False),
        (tolerating(key="team", value="ml"), {}, [TAINT], True),
        (tolerating(key="team", value="ml", effect="NoSchedule"), {}, [TAINT], True),
        (tolerating(key="team", value="ml", effect="NoExecute"), {}, [TAINT], False),
        (tolerating(key="team", value="web"), {}, [TAINT], False),
        (tolerating(key="team", operator="Exists"), {}, [TAINT], True),
        (tolerating(operator="Exists"), {}, [TAINT], True),
        (tolerating(key="other", operator="Exists"), {}, [TAINT], False),
    ],
)
def test_a_node_matches_as_the_scheduler_has_it(
    model: ModelBuilder, labels: dict[str, str], taints: list[dict[str, str]], matches: bool
) -> None:
    node = node_of(raw_node(labels=labels, capacity={"nvidia.com/gpu": "2"}, taints=taints))
    assert (not why_not(node, model.build().spec)) is matches


def test_why_a_node_does_not_match_is_said() -> None:
    node = node_of(raw_node(taints=[TAINT]))
    said = why_not(node, a_model().with_gpu().build().spec)
    assert said == "has the taint team=ml:NoSchedule, which spec.tolerations does not name"


@given(st.dictionaries(st.sampled_from(["nvidia.com/gpu.memory", "amd.com/gpu.vram"]), st.text(max_size=70)))
def test_no_label_is_too_odd(labels: dict[str, str]) -> None:
    for resource in ("nvidia.com/gpu", "amd.com/gpu"):
        found = memory(labels, resource=resource)
        assert found.size_bytes is None or found.size_bytes > 0


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.text(max_size=20), st.integers()), max_size=4))
def test_no_amount_is_too_odd(capacity: dict[str, object]) -> None:
    node = node_of({"metadata": {"name": "a"}, "status": {"capacity": capacity}})
    assert all(number > 0 for number in node.allocatable.values())
