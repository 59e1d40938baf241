"""What fields of the spec do to a server that runs: endpoints, logs, start-up, names, batches, drafts, vectors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import Client, Environment, serve
from support.kube import Kube, eventually, llama_model

pytestmark = pytest.mark.e2e

BUILD = "b11669"
WIDTH = 640
"""Elements of the vectors of Gemma 3 270M."""
PROMPT = "The capital of France is"
SMALL = {"contextSize": 1024, "parallelSlots": 1, "threads": 2}
TIMESTAMP = re.compile(r"^\d+\.\d{2}\.\d{3}\.\d{3} ", re.MULTILINE)


@pytest.fixture(scope="module")
def plain(kube: Kube) -> Iterator[dict[str, Any]]:
    """A manifest with nothing but the file."""
    yield serve(kube, llama_model("plain"))
    kube.delete("lm", "plain")


@pytest.fixture(scope="module")
def plain_log(kube: Kube, client: Client, plain: dict[str, Any]) -> str:
    """What it wrote, one answer included."""
    assert client.post("plain", "/v1/completions", prompt=PROMPT, max_tokens=2).body
    return kube("logs", "deployment/plain")


@pytest.fixture(scope="module")
def special(kube: Kube) -> Iterator[dict[str, Any]]:
    """One with all that does not disturb the rest."""
    manifest = llama_model(
        "special",
        servedModelName="org/special:v1",
        engine={**SMALL, "skipWarmup": True, "checkTensors": False, "gpuLayers": 0},
        endpoints={"metrics": False, "slots": False},
        logging={"verbose": True, "timestamps": False},
        requestDefaults={"max_tokens": 3},
        extraArgs=["--top-n-sigma", "1.5"],
        env=[{"name": "LLAMA_ARG_TOP_K", "value": "7"}],
    )
    yield serve(kube, manifest)
    kube.delete("lm", "special")


@pytest.fixture(scope="module")
def special_log(kube: Kube, client: Client, special: dict[str, Any]) -> str:
    """What it wrote, one answer included."""
    assert client.post("special", "/v1/completions", prompt=PROMPT, max_tokens=2).body
    return kube("logs", "deployment/special")


def test_a_manifest_with_nothing_but_the_file_answers(client: Client, plain: dict[str, Any]) -> None:
    assert list(plain["spec"]["model"]) == ["pvc"]
    answer = client.post("plain", "/v1/completions", prompt=PROMPT, max_tokens=4, temperature=0).body
    assert answer["choices"][0]["text"].strip()


def test_the_status_says_which_build_runs(kube: Kube, plain: dict[str, Any]) -> None:
    def build() -> str | None:
        found: str | None = kube.must_get("lm", "plain")["status"]["engine"].get("build")
        return found

    assert eventually(build, within=30) == BUILD


def test_metrics_and_slots_answer_by_default_and_describe_names_their_urls(
    kube: Kube, client: Client, plain: dict[str, Any]
) -> None:
    assert "llamacpp:requests_processing" in client.get("plain", "/metrics").text
    assert len(client.get("plain", "/slots").body) == 4
    base = f"http://plain.{kube.namespace}.svc:8080"
    assert plain["status"]["endpoints"] == {"metrics": f"{base}/metrics", "slots": f"{base}/slots"}
    described = kube("describe", "lm", "plain")
    assert re.search(rf"Endpoints:\s+Metrics: +{base}/metrics\s+Slots: +{base}/slots", described)


def test_metrics_and_slots_can_be_switched_off(client: Client, special: dict[str, Any]) -> None:
    for path in ("/metrics", "/slots"):
        answer = client.get("special", path)
        assert (answer.status, json.loads(answer.text)["error"]["type"]) == (501, "not_supported_error"), path
    assert not special["status"].get("endpoints")


def test_verbose_shows_what_is_not_shown_by_default(plain_log: str, special_log: str) -> None:
    assert "loading tensor blk.0" in special_log
    assert "loading tensor blk.0" not in plain_log
    assert len(special_log.splitlines()) > 10 * len(plain_log.splitlines())


def test_lines_begin_with_timestamps_unless_they_are_switched_off(plain_log: str, special_log: str) -> None:
    assert len(TIMESTAMP.findall(plain_log)) > len(plain_log.splitlines()) / 2
    assert not TIMESTAMP.search(special_log)


def test_tensors_are_checked_by_default_and_not_where_the_spec_says_so(
    plain: dict[str, Any], special: dict[str, Any]
) -> None:
    assert "--check-tensors" in plain["status"]["command"]
    assert "--check-tensors" not in special["status"]["command"]


def test_the_alias_is_listed_accepted_and_answered_with(client: Client, special: dict[str, Any]) -> None:
    alias = "org/special:v1"
    assert special["status"]["servedModelName"] == alias
    assert [model["id"] for model in client.get("special", "/v1/models").body["data"]] == [alias]
    answer = client.post("special", "/v1/completions", model=alias, prompt=PROMPT, max_tokens=1).body
    assert answer["model"] == alias


def test_arguments_variables_and_request_defaults_arrive(client: Client, special: dict[str, Any]) -> None:
    settings = client.get("special", "/props").body["default_generation_settings"]["params"]
    assert settings["top_n_sigma"] == pytest.approx(1.5)
    assert settings["top_k"] == 7
    assert client.post("special", "/v1/completions", prompt=PROMPT).body["usage"]["completion_tokens"] == 3


def test_the_log_can_be_read_while_the_model_is_loading(kube: Kube) -> None:
    # A twentieth of a core: loading takes long enough to be looked at.
    kube.apply(llama_model("slow", engine={**SMALL, "threads": 1}, resources={"limits": {"cpu": "50m"}}))
    eventually(lambda: "llama_server: initializing" in kube("logs", "deployment/slow"), within=120)
    assert kube.must_get("lm", "slow")["status"]["phase"] in ("Pending", "Loading"), "the log came before the answer"
    kube.delete("lm", "slow")
    kube("delete", "pods", "--selector=llamamodel.dev/model=slow", "--grace-period=0", "--force")


def test_warm_up_runs_unless_it_is_skipped_and_vectors_have_the_width_of_the_model(
    kube: Kube, client: Client, special_log: str
) -> None:
    # Only a verbose log tells of the warm-up.
    serve(kube, llama_model("vectors", task="embed", engine={**SMALL, "pooling": "mean"}, logging={"verbose": True}))
    assert "warming up the model" in kube("logs", "deployment/vectors")
    assert "warming up the model" not in special_log
    answer = client.post("vectors", "/v1/embeddings", input=["one", "another text"]).body
    assert [len(entry["embedding"]) for entry in answer["data"]] == [WIDTH, WIDTH]
    assert answer["data"][0]["embedding"] != answer["data"][1]["embedding"]
    kube.delete("lm", "vectors")


def test_a_draft_model_speculates(kube: Kube, client: Client) -> None:
    draft = {"pvc": {"claimName": "models", "path": "gemma-3-270m-Q4_K_M.gguf"}}
    engine = {**SMALL, "skipWarmup": True}
    serve(kube, llama_model("drafted", engine=engine, speculative={"draftModel": draft, "maxTokens": 4}))
    body = {"prompt": "One, two, three,", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    timings = client.post("drafted", "/v1/completions", **body).body["timings"]
    # It drafts for itself, so nearly every draft is taken.
    assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
    assert timings["draft_n_accepted"] >= timings["draft_n"] / 2
    kube.delete("lm", "drafted")


LONG_AND_SHORT = """
import json, sys, threading, urllib.request as u

def ask(**body):
    data = json.dumps({"prompt": "One, two,", "ignore_eos": True, **body}).encode()
    return u.urlopen(u.Request(sys.argv[1], data=data, headers={"Content-Type": "application/json"}), timeout=300)

done = []
with ask(max_tokens=200, stream=True) as stream:
    stream.readline()  # it generates

    def short():
        ask(max_tokens=1).read()
        done.append("short")

    thread = threading.Thread(target=short)
    thread.start()
    stream.read()
    done.append("long")
    thread.join()
print(json.dumps(done))
"""


def test_a_model_may_do_without_continuous_batching_where_all_others_have_it(
    environment: Environment, kube: Kube, client: Client, in_cluster: Callable[..., str]
) -> None:
    engine = {**SMALL, "parallelSlots": 2, "skipWarmup": True}
    environment.deploy_operator("modelDefaults.engine.contBatching=true")
    try:
        own = serve(kube, llama_model("batch", engine={**engine, "contBatching": False}))["status"]["command"]
        assert ("--no-cont-batching" in own, "--cont-batching" in own) == (True, False)
        url = f"http://batch.{kube.namespace}.svc:8080/v1/completions"
        assert client.get("batch", "/health").body
        assert json.loads(in_cluster(LONG_AND_SHORT, url)) == ["long", "short"]
        others = serve(kube, llama_model("batch", engine=engine))["status"]["command"]
        assert ("--no-cont-batching" in others, "--cont-batching" in others) == (False, True)
        assert client.get("batch", "/health").body
        assert json.loads(in_cluster(LONG_AND_SHORT, url)) == ["short", "long"]
    finally:
        kube.delete("lm", "batch")
        environment.deploy_operator()
