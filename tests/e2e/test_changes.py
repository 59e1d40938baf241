"""Changes of a LlamaModel and of its children: what must follow follows, what must not does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.kube import Kube, condition, eventually, llama_model, steadily

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("gpus")]

POD_SELECTOR = "llamamodel.dev/model=gemma"
SECONDS = 20.0
"""'Within seconds', on a machine that does other things too."""


@pytest.fixture(autouse=True)
def gemma(kube: Kube) -> Iterator[None]:
    kube.apply(llama_model("gemma", gpu={}, engine={"contextSize": 2048}))
    wait_until_ready(kube)
    yield
    kube.delete("llamamodel", "gemma")
    eventually(lambda: not pods(kube), within=60)


def wait_until_ready(kube: Kube) -> None:
    kube("wait", "--for=condition=Ready", "lm/gemma", "--timeout=180s", timeout=200)


def pods(kube: Kube) -> list[dict[str, Any]]:
    return kube.select("pods", POD_SELECTOR)


def identity(kube: Kube) -> list[tuple[str, int]]:
    return sorted((pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods(kube))


def gpus_in_use(kube: Kube) -> int:
    """As the scheduler counts: all pods that exist and have not finished, also those being deleted."""
    everywhere = json.loads(kube("get", "pods", "--all-namespaces", "-o", "json"))["items"]
    running = [pod for pod in everywhere if pod["status"].get("phase") not in ("Succeeded", "Failed")]
    limits = [c.get("resources", {}).get("limits", {}) for p in running for c in p["spec"]["containers"]]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def test_scaling_to_zero_and_back_frees_the_gpu_and_takes_it_again(kube: Kube) -> None:
    before = gpus_in_use(kube)
    kube("scale", "lm/gemma", "--replicas=0")
    eventually(lambda: gpus_in_use(kube) == before - 1, within=60)
    stopped = eventually(lambda: phase_is(kube, "Suspended"), within=SECONDS)
    assert condition(stopped, "Ready")["reason"] == "ScaledToZero"
    kube("scale", "lm/gemma", "--replicas=1")
    wait_until_ready(kube)
    assert gpus_in_use(kube) == before


def test_suspending_frees_the_gpu_and_keeps_the_service(kube: Kube) -> None:
    before, service = gpus_in_use(kube), kube.must_get("service", "gemma")["metadata"]["uid"]
    kube.patch("lm", "gemma", {"spec": {"suspend": True}})
    eventually(lambda: gpus_in_use(kube) == before - 1, within=60)
    stopped = eventually(lambda: phase_is(kube, "Suspended"), within=SECONDS)
    assert condition(stopped, "Ready")["reason"] == "Suspended"
    assert kube.must_get("service", "gemma")["metadata"]["uid"] == service
    kube.patch("lm", "gemma", {"spec": {"suspend": False}})
    wait_until_ready(kube)


def test_deleting_removes_all_children_and_frees_the_gpu(kube: Kube) -> None:
    before = gpus_in_use(kube)
    kube.delete("llamamodel", "gemma")
    eventually(lambda: kube.get("deployment", "gemma") is None, within=60)
    eventually(lambda: kube.get("service", "gemma") is None, within=60)
    eventually(lambda: gpus_in_use(kube) == before - 1, within=60)


def test_two_replicas_on_two_gpus_roll_without_a_third(kube: Kube) -> None:
    kube("scale", "lm/gemma", "--replicas=2")
    wait_until_ready(kube)
    old = {uid for uid, _ in identity(kube)}
    kube.patch("lm", "gemma", {"spec": {"engine": {"contextSize": 1024}}})
    deadline, fewest = time.monotonic() + 150, 2
    while condition(kube.must_get("lm", "gemma"), "Ready").get("status") != "True":
        assert time.monotonic() < deadline, "the rollout does not end"
        now = pods(kube)
        assert sum("deletionTimestamp" not in pod["metadata"] for pod in now) <= 2
        fewest = min(fewest, sum(is_ready(pod) for pod in now))
        time.sleep(0.3)
    assert fewest >= 1, "one of the two pods serves at any time"
    assert len(pods(kube)) == 2
    assert not old & {uid for uid, _ in identity(kube)}
    assert all("1024" in pod["spec"]["containers"][0]["args"] for pod in pods(kube))


def test_a_label_or_annotation_of_the_llamamodel_rolls_nothing(kube: Kube) -> None:
    before = identity(kube)
    versions = {kind: kube.must_get(kind, "gemma")["metadata"]["resourceVersion"] for kind in ("deployment", "service")}
    kube("label", "lm/gemma", "team=red")
    kube("annotate", "lm/gemma", "note=hello")
    steadily(lambda: identity(kube) == before, during=5)
    for kind, version in versions.items():
        assert kube.must_get(kind, "gemma")["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("kind", ["deployment", "service"])
def test_a_deleted_child_is_back_within_seconds(kube: Kube, kind: str) -> None:
    before = kube.must_get(kind, "gemma")
    kube.delete(kind, "gemma")
    after = eventually(lambda: kube.get(kind, "gemma"), within=SECONDS)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    wait_until_ready(kube)


def test_a_deployment_scaled_by_hand_is_scaled_back(kube: Kube) -> None:
    kube("scale", "deployment/gemma", "--replicas=0")
    eventually(lambda: kube.must_get("deployment", "gemma")["spec"]["replicas"] == 1, within=SECONDS)
    wait_until_ready(kube)


def test_edited_children_are_put_back(kube: Kube) -> None:
    deployment, service = kube.must_get("deployment", "gemma")["spec"], kube.must_get("service", "gemma")["spec"]
    kube.patch("service", "gemma", {"spec": {"selector": {"llamamodel.dev/model": "somebody-else"}}})
    edit = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--port", "1"]}]
    kube.patch("deployment", "gemma", edit)

    def restored() -> bool:
        same_service: bool = kube.must_get("service", "gemma")["spec"] == service
        same_deployment: bool = kube.must_get("deployment", "gemma")["spec"] == deployment
        return same_service and same_deployment

    eventually(restored, within=SECONDS)
    wait_until_ready(kube)


def test_foreign_annotations_and_sidecars_stay(kube: Kube) -> None:
    kube("annotate", "deployment/gemma", "example.com/owner=somebody")
    sidecar = {
        "name": "sidecar",
        "image": kube.must_get("deployment", "gemma")["spec"]["template"]["spec"]["containers"][0]["image"],
        "args": ["--version"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    kube.patch("deployment", "gemma", [{"op": "add", "path": "/spec/template/spec/containers/-", "value": sidecar}])
    kube.patch("lm", "gemma", {"spec": {"podAnnotations": {"example.com/round": "2"}}})
    eventually(lambda: template(kube)["metadata"]["annotations"].get("example.com/round") == "2", within=SECONDS)

    def still_there() -> bool:
        names = [container["name"] for container in template(kube)["spec"]["containers"]]
        annotations = kube.must_get("deployment", "gemma")["metadata"]["annotations"]
        return "sidecar" in names and annotations.get("example.com/owner") == "somebody"

    assert still_there()
    assert steadily(still_there, during=12), "they stay over a resync"


def template(kube: Kube) -> dict[str, Any]:
    found: dict[str, Any] = kube.must_get("deployment", "gemma")["spec"]["template"]
    return found


def phase_is(kube: Kube, phase: str) -> dict[str, Any] | None:
    model = kube.must_get("lm", "gemma")
    settled = not condition(model, "Ready").get("message", "").endswith("stopping")
    return model if model.get("status", {}).get("phase") == phase and settled else None


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"
