"""Whether a model fits the GPUs of the nodes is said before a GPU is taken; nodes that change restart nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Environment, applied, pod_of, serve
from support.gguf import layer_tensors, llama_metadata, write_gguf
from support.kube import Kube, condition, eventually, llama_model, steadily

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("gpus")]

LABEL = "nvidia.com/gpu.memory"
FIGURES: dict[str, Any] = {
    "layers": 32,
    "embedding": 4096,
    "heads": 32,
    "kv_heads": 8,
    "feed_forward": 14336,
    "vocabulary": 128256,
}
"""Those of an 8B model."""


@pytest.fixture(scope="module")
def folder(environment: Environment) -> Iterator[Path]:
    path = environment.models_dir / "memory"
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    write_gguf(
        path / "8b.gguf",
        metadata=llama_metadata(**FIGURES, context=131072),
        tensors=layer_tensors(**FIGURES, type_name="Q4_K"),
    )
    yield path
    shutil.rmtree(path)


@pytest.fixture
def relabel(kube: Kube) -> Iterator[Callable[[str], None]]:
    """Has GPU feature discovery say another size of the GPUs of all nodes; the true one again in the end."""
    before = {node["metadata"]["name"]: node["metadata"]["labels"][LABEL] for node in kube.select("nodes", LABEL)}
    assert before, "no node has a GPU"

    def to(mebibytes: str) -> None:
        for name in before:
            kube.patch("node", name, {"metadata": {"labels": {LABEL: mebibytes}}})

    yield to
    for name, mebibytes in before.items():
        kube.patch("node", name, {"metadata": {"labels": {LABEL: mebibytes}}})


def an_8b(name: str, **spec: Any) -> dict[str, Any]:
    engine = {"contextSize": 8192, "gpuLayers": "all"}
    return llama_model(name, path="memory/8b.gguf", gpu={"count": 1}, engine=engine, **spec)


def test_what_does_not_fit_is_held_with_figures_and_released_by_the_label(
    kube: Kube, folder: Path, relabel: Callable[[str], None]
) -> None:
    relabel("4096")
    kube.apply(an_8b("large", memoryPolicy="Block"))

    def held() -> dict[str, Any]:
        model = kube.must_get("lm", "large")
        assert condition(model, "MemoryFits").get("status") == "False"
        return model

    model = eventually(held, within=60)
    fits, ready, memory = condition(model, "MemoryFits"), condition(model, "Ready"), model["status"]["memory"]
    assert (fits["reason"], ready["status"], ready["reason"]) == ("MemoryTooSmall", "False", "MemoryTooSmall")
    assert " 4Gi;" in fits["message"], "what there is"
    assert "Gi per GPU" in fits["message"], "what is needed"
    assert "it would fit with spec.engine.gpuLayers" in fits["message"]
    assert memory["fits"] == "False"
    assert model["status"]["model"]["architecture"] == "llama"
    assert memory["summary"].endswith("/4Gi")
    assert steadily(lambda: kube.select("pods", "llamamodel.dev/model=large"), during=5) == []

    generation = model["metadata"]["generation"]
    relabel("24576")

    def released() -> bool:
        assert condition(kube.must_get("lm", "large"), "MemoryFits")["status"] == "True"
        return bool(kube.select("pods", "llamamodel.dev/model=large"))

    eventually(released, within=60)
    assert kube.must_get("lm", "large")["metadata"]["generation"] == generation
    kube.delete("llamamodel", "large")


def test_figures_are_there_before_a_pod_is_scheduled(kube: Kube, folder: Path, relabel: Callable[[str], None]) -> None:
    relabel("4096")
    kube.apply(an_8b("waiting", suspend=True))

    def known() -> dict[str, Any]:
        status: dict[str, Any] = kube.must_get("lm", "waiting").get("status", {})
        assert status.get("memory")
        return status

    status = eventually(known, within=60)
    assert kube.select("pods", "llamamodel.dev/model=waiting") == []
    assert status["model"]["layers"] == FIGURES["layers"]
    assert status["memory"]["maxContextSize"] >= 0
    (gpu,) = status["memory"]["gpus"]
    assert gpu["weights"].endswith("Mi")
    header, *rows = kube("get", "lm").splitlines()
    (row,) = (row for row in rows if row.startswith("waiting "))
    assert header.split()[3:5] == ["MODEL", "MEMORY"]
    assert status["memory"]["summary"] in row.split()

    told = applied(kube, an_8b("waiting", suspend=True, replicas=2))
    assert "Warning: spec.gpu: needs " in told
    kube.delete("llamamodel", "waiting")


def test_a_node_that_is_relabelled_restarts_nothing(kube: Kube, relabel: Callable[[str], None]) -> None:
    model = serve(kube, llama_model("small", gpu={"count": 1}))
    assert condition(model, "MemoryFits")["status"] == "True"
    pod, deployment = pod_of(kube, "small"), kube.must_get("deployment", "small")
    relabel("256")
    eventually(lambda: condition(kube.must_get("lm", "small"), "MemoryFits")["status"] == "False", within=60)
    relabel("81920")
    eventually(lambda: condition(kube.must_get("lm", "small"), "MemoryFits")["status"] == "True", within=60)
    assert pod_of(kube, "small")["metadata"]["uid"] == pod["metadata"]["uid"]
    after = kube.must_get("deployment", "small")
    assert after["metadata"]["generation"] == deployment["metadata"]["generation"]
    kube.delete("llamamodel", "small")


@pytest.fixture
def add_node(kube: Kube) -> Iterator[Callable[[str, str, str], None]]:
    """Nodes without a kubelet, as an autoscaler registers them: name, GPUs, MiB of each. They go in the end. No pod
    has room on them: nobody would ever end it."""
    names: list[str] = []

    def add(name: str, gpus: str, mebibytes: str) -> None:
        names.append(name)
        taints = [{"key": "test/no-kubelet", "effect": "NoSchedule"}]
        labels = {"kubernetes.io/hostname": name, LABEL: mebibytes}
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "spec": {"taints": taints},
            }
        )
        amounts = {"nvidia.com/gpu": gpus, "cpu": "8", "memory": "64Gi", "pods": "0"}
        kube.patch("node", name, {"status": {"capacity": amounts, "allocatable": amounts}}, "--subresource=status")

    yield add
    for name in names:
        kube.delete("node", name)


def test_a_node_that_is_added_later_answers_who_waits_for_it_and_restarts_nothing(
    kube: Kube, folder: Path, add_node: Callable[[str, str, str], None]
) -> None:
    tolerations = [{"key": "test/no-kubelet", "operator": "Exists"}]
    serve(kube, llama_model("runs", gpu={"count": 1}, tolerations=tolerations))
    pod, deployment = pod_of(kube, "runs"), kube.must_get("deployment", "runs")
    eight = an_8b("eight", tolerations=tolerations)
    eight["spec"]["gpu"] = {"count": 8}
    kube.apply(eight)
    eventually(lambda: condition(kube.must_get("lm", "eight"), "MemoryFits")["reason"] == "NoNodeYet", within=60)

    add_node("added", "8", "81920")
    eventually(lambda: condition(kube.must_get("lm", "eight"), "MemoryFits")["status"] == "True", within=60)
    message = condition(kube.must_get("lm", "eight"), "MemoryFits")["message"]
    assert "with enough: added 80Gi" in message
    eventually(lambda: "2 nodes" in condition(kube.must_get("lm", "runs"), "MemoryFits")["message"], within=30)
    assert pod_of(kube, "runs")["metadata"]["uid"] == pod["metadata"]["uid"]
    after = kube.must_get("deployment", "runs")
    assert after["metadata"]["generation"] == deployment["metadata"]["generation"]
    kube.delete("llamamodel", "eight")
    kube.delete("llamamodel", "runs")
