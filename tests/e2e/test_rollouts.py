"""Changes hurt nobody: rollouts under a stream of requests, load that probes must not mistake, bad specs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from e2e.conftest import Environment, pod_of, serve, served
from support.kube import Kube, condition, eventually, llama_model, steadily
from support.meanwhile import meanwhile

pytestmark = pytest.mark.e2e

_STREAM = """
import http.client, json, sys, threading, time

host, clients, seconds, tokens = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
end, lock, done = time.monotonic() + seconds, threading.Lock(), []

def ask():
    body = json.dumps({"prompt": "The capital of France is", "n_predict": tokens, "stream": True, "ignore_eos": True})
    begun, pieces, last = time.time(), 0, None
    try:
        connection = http.client.HTTPConnection(host, 8080, timeout=240)
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            return {"error": f"status {answer.status}: {answer.read(200)!r}", "at": begun}
        for line in answer:
            if line.startswith(b"data: "):
                pieces, last = pieces + 1, json.loads(line[6:])
        if last is None or not last.get("stop"):
            return {"error": f"cut short after {pieces} pieces", "at": begun}
        return {"tokens": last["tokens_predicted"], "at": begun, "until": time.time()}
    except OSError as error:
        return {"error": f"{type(error).__name__}: {error}", "at": begun, "refused": pieces == 0}

def client():
    while time.monotonic() < end:
        found = ask()
        with lock:
            done.append(found)
        if "error" in found:
            time.sleep(0.2)

threads = [threading.Thread(target=client) for _ in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(done))
"""

_HEALTH = """
import http.client, json, sys, threading, time

host, clients = sys.argv[1], int(sys.argv[2])

def ask():
    body = json.dumps({"prompt": "Once upon a time", "n_predict": 24, "stream": True, "ignore_eos": True})
    connection = http.client.HTTPConnection(host, 8080, timeout=280)
    connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
    connection.getresponse().read()

threads = [threading.Thread(target=ask) for _ in range(clients)]
[thread.start() for thread in threads]
time.sleep(2)
took = []
while any(thread.is_alive() for thread in threads) and len(took) < 20:
    begun = time.monotonic()
    connection = http.client.HTTPConnection(host, 8080, timeout=30)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    took.append(time.monotonic() - begun)
    time.sleep(0.5)
waited = sum(thread.is_alive() for thread in threads)
[thread.join() for thread in threads]
print(json.dumps({"took": took, "waited": waited}))
"""

_PREFILL = """
import http.client, json, sys, time

host, seconds, most = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

def ask(words):
    begun = time.monotonic()
    connection = http.client.HTTPConnection(host, 8080, timeout=280)
    prompt = " ".join(f"word{number}" for number in range(words))
    body = json.dumps({"prompt": prompt, "n_predict": 1, "cache_prompt": False})
    connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    return {"status": answer.status, "seconds": time.monotonic() - begun, "said": said.get("timings")}

short = ask(100)
print(json.dumps(ask(min(most, int(100 * seconds / short["seconds"])))))
"""

ENGINE = {"contextSize": 2048, "parallelSlots": 2}

Answers = list[dict[str, Any]]


def streaming(
    run: Callable[..., str], host: str, *, clients: int, seconds: float, tokens: int = 48
) -> AbstractContextManager[Callable[[], Answers]]:
    """Clients in the cluster that ask one request after the other, for so long, while the block runs."""

    def answers() -> Answers:
        found: Answers = json.loads(run(_STREAM, host, str(clients), str(seconds), str(tokens)))
        return found

    return meanwhile(answers, head_start_sec=2)


def failed(answers: Answers) -> Answers:
    return [answer for answer in answers if "error" in answer]


def restarts(kube: Kube, name: str) -> list[tuple[str, int]]:
    pods = kube.select("pods", f"llamamodel.dev/model={name}")
    return sorted((pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods)


@pytest.mark.usefixtures("gpus")
def test_with_two_replicas_a_rollout_under_load_fails_no_request(kube: Kube, in_cluster: Callable[..., str]) -> None:
    kube.apply(llama_model("pair", replicas=2, gpu={}, engine=ENGINE))
    kube("wait", "--for=condition=Ready", "lm/pair", "--timeout=240s", timeout=250)
    before = {pod["metadata"]["uid"] for pod in kube.select("pods", "llamamodel.dev/model=pair")}
    assert kube.must_get("poddisruptionbudget", "pair")["spec"]["maxUnavailable"] == 1
    with streaming(in_cluster, f"pair.{kube.namespace}.svc", clients=3, seconds=60) as streamed:
        kube.patch("lm", "pair", {"spec": {"engine": {"contextSize": 1536}}})
        kube("wait", "--for=condition=Ready", "lm/pair", "--timeout=240s", timeout=250)
        after = {pod["metadata"]["uid"] for pod in kube.select("pods", "llamamodel.dev/model=pair")}
    answers = streamed()
    assert failed(answers) == []
    assert len(answers) >= 10
    assert not before & after
    kube("scale", "lm/pair", "--replicas=1")
    eventually(lambda: kube.get("poddisruptionbudget", "pair") is None, within=30)
    kube.delete("llamamodel", "pair")


@pytest.mark.usefixtures("gpus")
def test_with_one_replica_and_no_spare_gpu_no_answer_is_cut_short(
    kube: Kube, in_cluster: Callable[..., str], record_property: Callable[[str, object], None]
) -> None:
    serve(kube, llama_model("single", gpu={"count": 2}, engine=ENGINE))  # all that the node has
    with streaming(in_cluster, f"single.{kube.namespace}.svc", clients=2, seconds=75, tokens=96) as streamed:
        kube.patch("lm", "single", {"spec": {"engine": {"contextSize": 1536}}})
        served(kube, "single")
        replaced = time.time()
    answers = streamed()
    assert [one for one in failed(answers) if not one.get("refused")] == [], "what was begun was finished"
    assert any(one["at"] > replaced for one in answers if "tokens" in one), "the old pod did not wait for a pause"
    good = sorted(one["at"] for one in answers if "tokens" in one)
    ends = sorted(one["until"] for one in answers if "tokens" in one)
    gap = max(begun - max((end for end in ends if end <= begun), default=begun) for begun in good)
    record_property("gap_seconds", round(gap, 1))
    print(f"gap without answers: {gap:.1f} s")
    assert all(one["tokens"] == 96 for one in answers if "tokens" in one)
    kube.delete("llamamodel", "single")


@pytest.mark.usefixtures("gpus")
def test_a_pod_that_is_stopped_while_it_loads_ends_at_once(kube: Kube) -> None:
    """A tenth of a core makes it load for long; llama-server handles no signal until it has."""
    kube.apply(llama_model("loads", gpu={}, engine=ENGINE, resources={"limits": {"cpu": "100m"}}))

    def loading() -> bool:
        return condition(kube.must_get("lm", "loads"), "Ready").get("reason") == "Loading"

    eventually(loading, within=120)
    kube.patch("lm", "loads", {"spec": {"suspend": True}})
    eventually(lambda: not kube.select("pods", "llamamodel.dev/model=loads"), within=60)
    kube.delete("llamamodel", "loads")


def test_a_long_prefill_and_a_long_queue_restart_nothing_and_make_nothing_unready(
    kube: Kube, in_cluster: Callable[..., str]
) -> None:
    engine = {"contextSize": 32768, "parallelSlots": 1, "threads": 1}
    serve(kube, llama_model("busy", engine=engine))
    before = restarts(kube, "busy")
    host = f"busy.{kube.namespace}.svc"
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1):
            ready = condition(kube.must_get("lm", "busy"), "Ready")
            seen.append(f"{ready.get('status')} {ready.get('reason')}")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        prefill = json.loads(in_cluster(_PREFILL, host, "35", "5000"))
        queue = json.loads(in_cluster(_HEALTH, host, "64"))
    finally:
        stop.set()
        thread.join()
    print(
        f"prefill of {prefill['said']['prompt_n']} tokens: {prefill['seconds']:.1f} s;"
        f" slowest /health: {max(queue['took']):.3f} s"
    )
    assert prefill["status"] == 200
    assert prefill["seconds"] > 30
    assert queue["waited"] or len(queue["took"]) == 20
    assert sorted(queue["took"])[-2] < 1, f"one in 20 may wait for a core: {queue['took']}"
    assert set(seen) == {"True Ready"}
    assert restarts(kube, "busy") == before
    kube.delete("llamamodel", "busy")


def test_an_autoscaler_scales_the_llamamodel_and_suspend_wins(kube: Kube) -> None:
    serve(kube, llama_model("scaled", engine=ENGINE, resources={"requests": {"cpu": "50m"}}))
    kube.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "scaled"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "llamamodel.dev/v1alpha1", "kind": "LlamaModel", "name": "scaled"},
                "minReplicas": 2,
                "maxReplicas": 3,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}},
                    }
                ],
            },
        }
    )
    eventually(lambda: kube.must_get("lm", "scaled")["spec"]["replicas"] == 2, within=90)
    eventually(lambda: kube.must_get("deployment", "scaled")["spec"]["replicas"] == 2, within=30)
    kube.patch("lm", "scaled", {"spec": {"suspend": True}})
    eventually(lambda: kube.must_get("deployment", "scaled")["spec"]["replicas"] == 0, within=30)
    steadily(lambda: kube.must_get("deployment", "scaled")["spec"]["replicas"], during=20, pause=2)
    kube.delete("hpa", "scaled")
    kube.delete("llamamodel", "scaled")


@pytest.fixture(scope="module")
def serving(kube: Kube, environment: Environment) -> Iterator[dict[str, Any]]:
    """A model that serves, in a cluster whose webhook refuses nothing."""
    configuration = kube.must_get("validatingwebhookconfiguration", "llamamodel-operator-webhook")
    rules = configuration["webhooks"][0]["rules"]
    none = [{"op": "replace", "path": "/webhooks/0/rules", "value": [{**rules[0], "resources": ["nothings"]}]}]
    kube.patch("validatingwebhookconfiguration", "llamamodel-operator-webhook", none)
    bad = llama_model("bad", grammar={"inline": 'root ::= "a'})
    eventually(lambda: kube("create", "--dry-run=server", "-f", "-", stdin=json.dumps(bad)), within=60)
    yield serve(kube, llama_model("steady", engine=ENGINE))
    back = [{"op": "replace", "path": "/webhooks/0/rules", "value": rules}]
    kube.patch("validatingwebhookconfiguration", "llamamodel-operator-webhook", back)
    kube.delete("llamamodel", "steady")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extraArgs": ["--no-such-flag"]}, "HeldBack"),
        ({"extraArgs": ["--model", "/etc/passwd"]}, "InvalidSpec"),
        ({"extraArgs": ["--ctx-size", "many"]}, "InvalidSpec"),
        ({"grammar": {"inline": 'root ::= "a'}}, "InvalidSpec"),
        ({"chatTemplate": {"inline": "{% for m in messages %}"}}, "InvalidSpec"),
        ({"chatTemplate": {"inline": "{{ raise_exception('no') }}"}}, "InvalidSpec"),
        ({"chatTemplate": {"configMapKeyRef": {"name": "nowhere", "key": "x"}}}, "InvalidSpec"),
        ({"env": [{"name": "LLAMA_ARG_CTX_SIZE", "value": "99"}]}, "InvalidSpec"),
        ({"model": {"pvc": {"claimName": "models", "path": "no-such-file.gguf"}}}, "ModelFileNotFound"),
        ({"model": {"pvc": {"claimName": "nowhere", "path": "a.gguf"}}}, "ClaimNotFound"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_bad_change_leaves_the_old_pods_serving(
    kube: Kube, serving: Mapping[str, Any], change: Mapping[str, Any], reason: str
) -> None:
    before = restarts(kube, "steady")
    kube.patch("lm", "steady", {"spec": change})
    stuck = eventually(lambda: _not_ready(kube, reason), within=60)
    assert condition(stuck, "Available")["status"] == "True"
    assert steadily(lambda: restarts(kube, "steady"), during=3) == before
    back = {key: None for key in change if key != "model"}
    kube.patch("lm", "steady", {"spec": {**back, "model": serving["spec"]["model"]}})
    kube("wait", "--for=condition=Ready", "lm/steady", "--timeout=120s", timeout=130)
    assert restarts(kube, "steady") == before, "nor does the way back"


def _not_ready(kube: Kube, reason: str) -> dict[str, Any]:
    model = kube.must_get("lm", "steady")
    assert condition(model, "Ready").get("reason") == reason, condition(model, "Ready")
    return model


def test_waiting_for_ready_right_after_a_change_never_returns_on_the_old_generation(
    kube: Kube, serving: Mapping[str, Any]
) -> None:
    for number in range(100):
        kube.patch("lm", "steady", {"spec": {"memoryPolicy": ("Block", "Warn")[number % 2]}})
        kube("wait", "--for=condition=Ready", "lm/steady", "--timeout=60s", timeout=70)
        found = kube.must_get("lm", "steady")
        ready = condition(found, "Ready")
        assert ready.get("status") == "True", "the condition speaks of an old generation"
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert pod_of(kube, "steady")["status"]["containerStatuses"][0]["restartCount"] == 0
