"""A LlamaModel becomes an endpoint that answers from a real GGUF."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from e2e.conftest import Environment
from support.kube import Kube, condition, llama_model

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("gpus")]

GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=60).read().decode())"
POST = """
import sys, urllib.request as u
request = u.Request(sys.argv[1], data=sys.argv[2].encode(), headers={"Content-Type": "application/json"})
print(u.urlopen(request, timeout=120).read().decode())
"""


@pytest.fixture(scope="module", autouse=True)
def gemma(kube: Kube) -> None:
    kube.apply(llama_model("gemma", servedModelName="gemma-270m", gpu={}, engine={"contextSize": 4096}))
    kube("wait", "--for=condition=Ready", "lm/gemma", "--timeout=120s")


def test_models_through_the_service_names_the_served_model(kube: Kube, in_cluster: Callable[..., str]) -> None:
    endpoint = kube.must_get("llamamodel", "gemma")["status"]["endpoint"]
    assert endpoint == f"http://gemma.{kube.namespace}.svc:8080"
    models = json.loads(in_cluster(GET, f"{endpoint}/v1/models"))
    assert [model["id"] for model in models["data"]] == ["gemma-270m"]


def test_a_completion_answers(kube: Kube, in_cluster: Callable[..., str]) -> None:
    body = {"model": "gemma-270m", "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    answer = json.loads(in_cluster(POST, f"http://gemma.{kube.namespace}.svc:8080/v1/completions", json.dumps(body)))
    assert answer["choices"][0]["text"].strip()
    assert answer["usage"]["completion_tokens"] == 4


def test_a_streamed_completion_answers_piece_by_piece(kube: Kube, in_cluster: Callable[..., str]) -> None:
    body = {"model": "gemma-270m", "prompt": "One, two, three,", "max_tokens": 6, "temperature": 0, "stream": True}
    text = in_cluster(POST, f"http://gemma.{kube.namespace}.svc:8080/v1/completions", json.dumps(body))
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["text"] for event in events[:-1]]
    assert sum(bool(piece) for piece in pieces) >= 4


def test_metrics_and_slots_are_on(kube: Kube, in_cluster: Callable[..., str]) -> None:
    assert "llamacpp:requests_processing" in in_cluster(GET, f"http://gemma.{kube.namespace}.svc:8080/metrics")
    assert json.loads(in_cluster(GET, f"http://gemma.{kube.namespace}.svc:8080/slots"))


def test_the_status_says_what_runs(kube: Kube) -> None:
    model = kube.must_get("llamamodel", "gemma")
    status, (pod,) = model["status"], kube.select("pods", model["status"]["selector"])
    container = pod["spec"]["containers"][0]
    assert status["phase"] == "Ready"
    assert status["observedGeneration"] == model["metadata"]["generation"]
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["engine"]["image"] == container["image"]
    assert status["command"] == ["llama-server", *container["args"]]
    assert "command" not in container
    assert {kind: condition(model, kind)["status"] for kind in ("Accepted", "Available", "Progressing", "Ready")} == {
        "Accepted": "True",
        "Available": "True",
        "Progressing": "False",
        "Ready": "True",
    }


def test_kubectl_get_shows_phase_model_and_endpoint(kube: Kube) -> None:
    header, row = kube("get", "lm").splitlines()
    assert header.split() == ["NAME", "PHASE", "READY", "MODEL", "MEMORY", "ENDPOINT", "AGE"]
    name, phase, ready, model, memory, endpoint, _ = row.split()
    assert (name, phase, ready, model) == ("gemma", "Ready", "True", "gemma3/Q4_K_M")
    estimate, available = memory.split("/")
    assert estimate.endswith("Mi")
    assert available.endswith("Gi")
    assert endpoint == f"http://gemma.{kube.namespace}.svc:8080"
    assert "1 pod serves as gemma-270m" in kube("get", "llama", "-o", "wide")


def test_the_pod_is_restricted_and_asks_for_one_gpu(kube: Kube) -> None:
    # The namespace enforces the restricted pod security standard: the pod would not exist otherwise.
    (pod,) = kube.select("pods", "llamamodel.dev/model=gemma")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_event_tells_when_the_model_became_ready(kube: Kube) -> None:
    events = kube.select("events.events.k8s.io")
    told = [(event["reason"], event["type"]) for event in events if event["regarding"]["kind"] == "LlamaModel"]
    assert told == [("Ready", "Normal")]


def test_a_manifest_with_nothing_but_the_file_serves_on_the_cpu(kube: Kube, in_cluster: Callable[..., str]) -> None:
    kube.apply(llama_model("qwen2.5-minimal"))
    kube("wait", "--for=condition=Ready", "lm/qwen2.5-minimal", "--timeout=120s")
    endpoint = kube.must_get("llamamodel", "qwen2.5-minimal")["status"]["endpoint"]
    models = json.loads(in_cluster(GET, f"{endpoint}/v1/models"))
    assert [model["id"] for model in models["data"]] == ["qwen2.5-minimal"]
    kube.delete("llamamodel", "qwen2.5-minimal")


def test_the_operator_serves_metrics_and_health(environment: Environment, in_cluster: Callable[..., str]) -> None:
    (pod,) = environment.operator_pods()
    base = f"http://{pod['status']['podIP']}:8080"
    assert in_cluster(GET, f"{base}/healthz").splitlines() == ["watches: ok", "workers: ok", ""]
    metrics = in_cluster(GET, f"{base}/metrics")
    assert re.search(r'llamamodel_operator_models\{phase="Ready"\} [1-9]', metrics)
    assert "llamamodel_operator_leader 1.0" in metrics
