"""The operator may be away: what serves serves, what is deleted goes; and it comes back without touching anything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import OPERATOR_USER, RESYNC_SEC, Environment
from e2e.test_serving import POST
from support.kube import Kube, condition, eventually, llama_model, steadily

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("gpus")]


@pytest.fixture(scope="module", autouse=True)
def two_models(environment: Environment, kube: Kube) -> Iterator[None]:
    kube.apply(llama_model("stays", gpu={}), llama_model("goes", gpu={}))
    kube("wait", "--for=condition=Ready", "lm/stays", "lm/goes", "--timeout=180s", timeout=200)
    yield
    environment.scale_operator(1)


@pytest.mark.usefixtures("audited")
def test_nothing_changes_once_all_is_ready(environment: Environment, kube: Kube) -> None:
    def all_is_known() -> bool:
        """What servers and their logs say of themselves comes last, after they are ready."""
        models = [kube.must_get("llamamodel", name) for name in ("stays", "goes")]
        read = ["is being read" not in condition(model, "Offloaded").get("message", "") for model in models]
        found = {finding["code"] for model in models for finding in model["status"].get("findings", [])}
        return all(read) and all(model["status"]["engine"].get("build") for model in models) and not found

    eventually(all_is_known, within=60)
    time.sleep(3)
    audit = environment.audit()
    before, end = versions(kube), time.monotonic() + 3.5 * RESYNC_SEC
    while time.monotonic() < end:
        now = versions(kube)
        assert {key: (before.get(key), now.get(key)) for key in before | now if before.get(key) != now.get(key)} == {}
        time.sleep(2)
    assert audit.writes(user=OPERATOR_USER) == []


def test_no_object_has_a_finalizer_or_an_annotation_of_kopf(kube: Kube) -> None:
    for raw in ours(kube):
        about = f"{raw['kind']} {raw['metadata']['name']}"
        assert not raw["metadata"].get("finalizers"), about
        assert not [key for key in raw["metadata"].get("annotations", {}) if "kopf" in key], about


@pytest.mark.usefixtures("audited")
def test_the_operator_may_be_away(environment: Environment, kube: Kube, in_cluster: Callable[..., str]) -> None:
    environment.scale_operator(0)

    body = json.dumps({"model": "stays", "prompt": "Hello", "max_tokens": 2})
    answer = json.loads(in_cluster(POST, f"http://stays.{kube.namespace}.svc:8080/v1/completions", body))
    assert answer["usage"]["completion_tokens"] == 2, "the model serves"

    kube.delete("llamamodel", "goes", "--timeout=20s")
    gone = [("deployment", "goes"), ("service", "goes")]
    eventually(lambda: not any(kube.get(kind, name) for kind, name in gone), within=60)
    eventually(lambda: not kube.select("pods", "llamamodel.dev/model=goes"), within=60)

    before, audit = versions(kube), environment.audit()
    environment.scale_operator(1)
    eventually(environment.leader, within=30)
    assert steadily(lambda: versions(kube) == before, during=2.5 * RESYNC_SEC, pause=2)
    assert [str(write) for write in audit.writes(user=OPERATOR_USER)] == [], "nothing is rewritten"


def ours(kube: Kube) -> list[dict[str, Any]]:
    children = "app.kubernetes.io/managed-by=llamamodel-operator"
    return [
        *kube.select("llamamodels"),
        *(raw for kind in ("deployments", "services", "pods", "replicasets") for raw in kube.select(kind, children)),
    ]


def versions(kube: Kube) -> dict[str, tuple[str, int]]:
    """Resource version of every object, and how often the containers of pods were restarted."""
    return {
        f"{raw['kind']}/{raw['metadata']['name']}": (
            raw["metadata"]["resourceVersion"],
            sum(c["restartCount"] for c in raw.get("status", {}).get("containerStatuses", [])),
        )
        for raw in ours(kube)
    }
