"""What a user sees and does with kubectl: names, columns, explanations, scale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .conftest import CRD_FILE
from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.kube import Kube
from .harness.models import a_model
from .harness.process import OperatorProcess


def _described() -> Iterator[str]:
    """The dotted path of everything of ours that has fields."""
    (version,) = yaml.safe_load(CRD_FILE.read_text())["spec"]["versions"]

    def walk(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in schema.get("properties", {}).items():
            inner = field.get("items", field)
            if "properties" in inner:
                yield f"{path}.{name}"
                yield from walk(inner, f"{path}.{name}")

    for top in ("spec", "status"):
        yield f"llamamodel.{top}"
        yield from walk(version["schema"]["openAPIV3Schema"]["properties"][top], f"llamamodel.{top}")


_KUBERNETES_OWN = ("affinity", "env", "imagePullSecrets", "podSecurityContext", "tolerations", "topologySpread")
"""Fields whose inner fields Kubernetes documents."""
OURS = [
    path for path in _described() if not path.startswith(tuple(f"llamamodel.spec.{name}" for name in _KUBERNETES_OWN))
]


@pytest.mark.parametrize("path", OURS)
def test_explain_says_something_about_each_field(path: str, cluster: Cluster, kube: Kube) -> None:
    said = cluster.kubectl("explain", path).stdout

    assert "FIELDS:" in said
    assert "<no description>" not in said
    assert "DESCRIPTION:\n    <empty>" not in said


def test_explain_of_the_engine_names_the_flags_and_what_an_unset_field_means(cluster: Cluster, kube: Kube) -> None:
    said = cluster.kubectl("explain", "llamamodel.spec.engine").stdout

    for words in ("contextSize", "--ctx-size", "gpuLayers", "--n-gpu-layers", "Unset:"):
        assert words in said


@pytest.mark.parametrize("name", ["lm", "llama", "llamamodel", "llamamodels", "llamamodels.llamamodel.dev", "all"])
def test_every_name_finds_the_model(name: str, bench: Bench) -> None:
    bench.create(a_model("gemma"))

    assert "llamamodel.llamamodel.dev/gemma" in bench.kubectl("get", name, "-o", "name")


def test_the_columns_show_how_a_model_stands(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(a_model("gemma").with_(servedModelName="google/gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    header, row = bench.kubectl("get", "lm").splitlines()

    assert header.split() == ["NAME", "PHASE", "READY", "MODEL", "MEMORY", "ENDPOINT", "AGE"]
    endpoint = f"http://gemma.{bench.namespace}.svc:8080"
    # nothing is known of the file, so the columns of model and memory are empty
    assert row.split()[:4] == ["gemma", "Pending", "False", endpoint]


def test_the_wide_columns_add_pods_image_and_the_reason_in_words(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(a_model("gemma").with_(image="example.com/llama:1"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    header, row = bench.kubectl("get", "lm", "-o", "wide").splitlines()

    assert header.split()[-3:] == ["PODS", "IMAGE", "MESSAGE"]
    assert "example.com/llama:1" in row
    assert "PersistentVolumeClaim models" in row
    assert row.split()[6] == "0", "readyReplicas"


def test_scale_changes_the_replicas_of_model_and_deployment(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(a_model("gemma"))
    bench.wait_until_settled("gemma")

    bench.kubectl("scale", "lm/gemma", "--replicas=3", "--current-replicas=1")
    bench.wait_until_settled("gemma")

    assert bench.get("LlamaModel", "gemma")["spec"]["replicas"] == 3
    assert bench.get("Deployment", "gemma")["spec"]["replicas"] == 3


def test_the_scale_subresource_tells_autoscalers_which_pods_count(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(a_model("gemma"))
    bench.play_bound_claim()
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")
    bench.wait_for_reason("gemma", "Ready")

    scale = json.loads(bench.kubectl("get", "lm/gemma", "--subresource=scale", "-o", "json"))

    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 1, "selector": "llamamodel.dev/model=gemma"}
    assert bench.kubectl("get", "pods", "-l", scale["status"]["selector"], "-o", "name") == "pod/gemma-0\n"


def test_wait_returns_when_the_model_is_ready(bench: Bench, operator: OperatorProcess) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")

    assert "condition met" in bench.kubectl("wait", "--for=condition=Ready", "lm/gemma", "--timeout=30s")


def test_wait_is_not_taken_in_by_the_ready_condition_of_an_earlier_spec(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")
    bench.wait_for_reason("gemma", "Ready")

    bench.edit_spec("gemma", engine={"contextSize": 4096})
    model = bench.wait_until_settled("gemma")

    conditions = model["status"]["conditions"]
    assert {found["observedGeneration"] for found in conditions} == {model["metadata"]["generation"]}
    assert "timed out" in bench.kubectl("wait", "--for=condition=Ready", "lm/gemma", "--timeout=1s", check=False)


def test_a_typing_error_is_refused_by_kubectl_apply(bench: Bench) -> None:
    body = a_model("gemma").with_(modle={}).in_(bench.namespace).body

    said = bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body), check=False)

    assert said.returncode == 1
    assert 'unknown field "spec.modle"' in said.stderr
