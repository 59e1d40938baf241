"""GPUs that DRA gives out, as a real API server keeps what their driver says: compared like those of a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import document_of, files_digest, files_of, inspection_key
from llamamodel_operator.core.objects.facts import build_facts
from llamamodel_operator.shell.gguf_files import open_gguf
from support.gguf import layer_tensors, llama_metadata, write_gguf

from .harness.bench import Bench, condition
from .harness.kube import Kube
from .harness.models import a_model
from .harness.process import OperatorProcess

OPERATOR: dict[str, Any] = {"resync_interval_sec": 600, "operator_image": "example.com/operator:1"}
DRIVER = "gpu.nvidia.com"
IS_GPU = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
NODE = "dra-node"


def devices(*memory: str, generation: int = 1) -> dict[str, Any]:
    """The driver's ResourceSlice: whole GPUs, and a MIG device."""
    listed = [
        {"name": f"gpu-{number}", "attributes": {"type": {"string": "gpu"}}, "capacity": {"memory": {"value": size}}}
        for number, size in enumerate(memory)
    ]
    mig = {"name": "mig", "attributes": {"type": {"string": "mig"}}, "capacity": {"memory": {"value": "1Gi"}}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{NODE}-{DRIVER}"},
        "spec": {
            "driver": DRIVER,
            "nodeName": NODE,
            "pool": {"name": NODE, "generation": generation, "resourceSliceCount": 1},
            "devices": [*listed, mig],
        },
    }


@pytest.fixture
def dra(kube: Kube) -> Iterator[None]:
    """A node without any device plugin, and the class that a driver comes with."""
    kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    spec = {"selectors": [{"cel": {"expression": IS_GPU}}], "extendedResourceName": "nvidia.com/gpu"}
    kube.create({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": DRIVER}, "spec": spec})
    kube.create(devices("24Gi", "48Gi"))
    yield
    kube.delete("ResourceSlice", "", f"{NODE}-{DRIVER}")
    kube.delete("DeviceClass", "", DRIVER)
    kube.delete("Node", "", NODE)


def inspected(bench: Bench, name: str, file: Path) -> None:
    """Plays the inspection's Job: the facts about this file are kept."""
    model = LlamaModel.parse(bench.get("LlamaModel", name))
    files, found = files_of(model.spec), open_gguf(str(file))
    facts = build_facts(
        model,
        key=inspection_key(files),
        digest=files_digest([found]),
        time="2026-01-01T12:00:00Z",
        document=document_of(zip(files, [found], strict=True)),
    )
    bench.kube.create(facts)


def test_gpus_that_dra_gives_out_are_compared_with_what_a_model_needs(
    bench: Bench, kube: Kube, operator: OperatorProcess, dra: None, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "gemma.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    bench.play_bound_claim()
    bench.create(a_model("gemma").with_(gpu={"count": 1}))
    inspected(bench, "gemma", file)

    fits = bench.wait_for_reason("gemma", "MemoryFits", kind="MemoryFits")
    assert (
        f"1 of 1 node that match, with enough: {NODE} 24Gi (as its ResourceSlice says)"
        in (condition(fits, "MemoryFits")["message"])
    )

    kube.apply(devices("512Mi", generation=2))
    small = bench.wait_for_reason("gemma", "MemoryTooSmall", kind="MemoryFits")
    assert condition(small, "MemoryFits")["status"] == "False"

    bench.edit_spec("gemma", gpu={"count": 2})
    few = bench.wait_for_reason("gemma", "NoNodeYet", kind="MemoryFits")
    assert f"{NODE} has 1 nvidia.com/gpu" in condition(few, "MemoryFits")["message"]

    kube.delete("ResourceSlice", "", f"{NODE}-{DRIVER}")
    bench.edit_spec("gemma", gpu={"count": 1})
    gone = bench.wait_for_reason("gemma", "NoNodeYet", kind="MemoryFits")
    assert NODE not in condition(gone, "MemoryFits")["message"]
