"""What users get wrong: each case gets a reason and a sentence, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.kube import Kube, condition, eventually, llama_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def bystander(kube: Kube) -> Iterator[None]:
    """Another model, which serves all the time and is never touched."""
    kube.apply(llama_model("bystander"))
    kube("wait", "--for=condition=Ready", "lm/bystander", "--timeout=180s", timeout=200)
    (before,) = kube.select("pods", "llamamodel.dev/model=bystander")
    yield
    (after,) = kube.select("pods", "llamamodel.dev/model=bystander")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert condition(kube.must_get("lm", "bystander"), "Ready")["status"] == "True"


def ready_condition(kube: Kube, manifest: dict[str, Any], *, reason: str, within: float = 60) -> dict[str, Any]:
    """Applies, waits for the reason, and takes the model away again."""
    name = manifest["metadata"]["name"]
    kube.apply(manifest)

    def found() -> dict[str, Any] | None:
        ready = condition(kube.must_get("lm", name), "Ready")
        assert ready.get("status") == "False", ready
        assert ready["reason"] == reason, ready
        return ready

    try:
        return eventually(found, within=within)
    finally:
        kube.delete("llamamodel", name)


def test_a_missing_claim(kube: Kube) -> None:
    ready = ready_condition(kube, llama_model("lost", claim="modells"), reason="ClaimNotFound")
    assert "PersistentVolumeClaim modells in namespace test-bad-input does not exist" in ready["message"]
    assert "spec.model.pvc.claimName" in ready["message"]


def test_a_missing_file(kube: Kube) -> None:
    ready = ready_condition(kube, llama_model("typo", path="gemma-3-270M.gguf"), reason="ModelFileNotFound")
    assert "spec.model.pvc: /models/models/gemma-3-270M.gguf: there is no such file" in ready["message"]
    assert ready["message"].count("\n") == 0


def test_more_gpus_than_any_node_has(kube: Kube) -> None:
    ready = ready_condition(kube, llama_model("greedy", gpu={"count": 3}), reason="Unschedulable")
    assert "Insufficient nvidia.com/gpu" in ready["message"]
    assert "spec.gpu asks for 3 nvidia.com/gpu per pod" in ready["message"]


def test_an_image_that_does_not_exist(kube: Kube) -> None:
    manifest = llama_model("noimage", image="localhost/no-such-image:1", imagePullPolicy="IfNotPresent")
    ready = ready_condition(kube, manifest, reason="ImagePullFailed")
    assert "localhost/no-such-image:1" in ready["message"]
    assert "spec.imagePullSecrets" in ready["message"]


def test_too_little_memory(kube: Kube) -> None:
    manifest = llama_model("small", resources={"limits": {"memory": "24Mi"}})
    ready = ready_condition(kube, manifest, reason="OutOfMemory", within=90)
    assert "raise spec.resources.limits.memory" in ready["message"]
    assert "24Mi" in ready["message"]


def test_too_little_time_to_start(kube: Kube) -> None:
    # A tenth of a core makes the start take far longer than the one second that it is given.
    manifest = llama_model("slow", startupTimeoutSec=1, resources={"limits": {"cpu": "100m"}})
    ready = ready_condition(kube, manifest, reason="StartupTimeout", within=150)
    assert "not ready within 1 s of its start" in ready["message"]
    assert "raise spec.startupTimeoutSec" in ready["message"]


def test_a_secret_that_does_not_exist(kube: Kube) -> None:
    reference = {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}
    manifest = llama_model("secretive", env=[{"name": "TOKEN", "valueFrom": reference}])
    ready = ready_condition(kube, manifest, reason="ContainerConfigError")
    assert 'secret "no-such-secret" not found' in ready["message"]


def test_a_name_that_is_taken(kube: Kube) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "labels": {"app": "theirs"}},
        "spec": {"ports": [{"port": 80}]},
    }
    kube.apply(theirs)
    before = kube.must_get("service", "taken")["metadata"]["resourceVersion"]
    ready = ready_condition(kube, llama_model("taken"), reason="NotOurs")
    assert "Service taken already exists and was not made by this operator; it is left as it is" in ready["message"]
    assert kube.must_get("service", "taken")["metadata"]["resourceVersion"] == before
    kube.delete("service", "taken")
