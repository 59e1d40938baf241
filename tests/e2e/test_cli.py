"""The command line beside a cluster: it shows what runs, and counts tokens as the servers do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.conftest import ROOT, pod_of, serve
from support.kube import Kube, eventually, llama_model

pytestmark = pytest.mark.e2e

PROGRAM = [sys.executable, "-m", "llamamodel_operator.cli.main"]
SMALL = ("--parallel", "1,3", "--requests", "4", "--prompt-tokens", "48", "--generate-tokens", "12")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(kubeconfig: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    return kept | {"PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig)}


@pytest.fixture
def cli(kube: Kube) -> Cli:
    """Runs it as a user would, from outside the cluster."""

    def call(*arguments: str, kubeconfig: Path = kube.kubeconfig) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments, "--namespace", kube.namespace],
            env=environment(kubeconfig),
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    return call


def benchmarked(cli: Cli, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One that came to its end. The API server's proxy breaks an answer off now and then: nothing was measured."""
    done = cli("bench", name, *SMALL, *arguments, "-o", "json")
    if done.returncode == 2 and "the answer broke off" in done.stderr:
        print(done.stderr)
        done = cli("bench", name, *SMALL, *arguments, "-o", "json")
    return done


@pytest.fixture(scope="module")
def model(kube: Kube) -> Iterator[dict[str, Any]]:
    """One that serves, with four slots."""
    engine = {"contextSize": 4096, "parallelSlots": 4, "flashAttention": "enabled", "batchSize": 2048}
    yield serve(kube, llama_model("gemma", engine=engine))
    kube.delete("llamamodel", "gemma")


def test_the_status_of_a_model_that_serves_and_its_servers(model: dict[str, Any], kube: Kube, cli: Cli) -> None:
    done = cli("status", "gemma", "-o", "json")
    told = json.loads(done.stdout)

    assert (done.returncode, done.stderr, told["ready"], told["podsNotReadable"]) == (0, "", True, None)
    (server,) = told["servers"]
    assert server["notReadable"] == {}
    assert [slot["busy"] for slot in server["slots"]] == [False] * 4
    assert server["build"]
    assert told["generatedTokensPerSecond"] == 0
    (pod,) = told["pods"]
    assert (pod["name"], pod["ready"], pod["restarts"]) == (pod_of(kube, "gemma")["metadata"]["name"], True, 0)

    text = cli("status", "gemma").stdout
    assert f"{kube.namespace}/gemma  Ready, 1 of 1 ready" in text
    assert "CONDITION" in text
    assert "0/4" in text
    assert "estimate: host" in text


def test_a_model_that_does_not_serve_is_exit_code_1_and_says_why(kube: Kube, cli: Cli) -> None:
    kube.apply(llama_model("absent", path="absent.gguf"))

    def told() -> subprocess.CompletedProcess[str]:
        done = cli("status", "absent")
        assert "ModelFileNotFound" in done.stdout
        return done

    assert eventually(told, within=60, pause=1).returncode == 1
    assert cli("logs", "absent").returncode == 1
    eventually(lambda: "absent.gguf" in cli("logs", "absent", "--inspection").stdout, within=30, pause=1)
    kube.delete("llamamodel", "absent")
    eventually(lambda: kube.get("llamamodel", "absent") is None, within=30)


def test_top_shows_all_models_and_what_they_do(model: dict[str, Any], kube: Kube, cli: Cli) -> None:
    kube.apply(llama_model("asleep", suspend=True))
    measuring = subprocess.Popen(
        [*PROGRAM, "bench", "gemma", "-n", kube.namespace, "--parallel", "2", "--generate-tokens", "400"],
        env=environment(kube.kubeconfig),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def busy() -> dict[str, Any]:
        models = {found["name"]: found for found in json.loads(cli("top", "-o", "json").stdout)["models"]}
        assert models["asleep"]["slots"] is None
        assert models["gemma"]["busySlots"] > 0
        assert models["gemma"]["generatedTokensPerSecond"] > 0
        return models

    assert list(eventually(busy, within=120)) == ["gemma", "asleep"], "the busiest first"
    measuring.send_signal(signal.SIGINT)
    measuring.communicate(timeout=60)
    assert measuring.returncode == 130
    kube.delete("llamamodel", "asleep")


def test_logs_are_those_of_the_server_from_the_first_line(model: dict[str, Any], kube: Kube, cli: Cli) -> None:
    done = cli("logs", "gemma")

    assert done.returncode == 0
    assert done.stdout == kube("logs", pod_of(kube, "gemma")["metadata"]["name"], "-c", "llama-server")
    assert len(cli("logs", "gemma", "--tail", "1").stdout.splitlines()) == 1
    assert cli("logs", "gemma", "--all-pods", "--tail", "1").stdout.startswith("[gemma-")
    assert cli("logs", "gemma", "--inspection").returncode == 0


def test_a_benchmark_counts_to_the_token_what_the_server_counts(model: dict[str, Any], cli: Cli) -> None:
    done = benchmarked(cli, "gemma")

    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(done.stdout)["models"]
    for level in measured["levels"]:
        assert level["counted"] == level["serverCounted"] == {"prompt": 4 * 48, "generated": 4 * 12}
        assert level["generatedTokensPerSecond"] > 0


def test_an_embedding_benchmark_counts_too(kube: Kube, cli: Cli) -> None:
    serve(kube, llama_model("embedder", task="embed", engine={"contextSize": 2048, "pooling": "mean"}))

    done = benchmarked(cli, "embedder")

    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(done.stdout)["models"]
    for level in measured["levels"]:
        assert level["counted"] == level["serverCounted"] == {"prompt": 4 * 48, "generated": 0}
    kube.delete("llamamodel", "embedder")


@pytest.mark.parametrize(
    "change",
    ["engine.flashAttention=off", "engine.batchSize=512", "engine.parallelSlots=1", "engine.contBatching=off"],
)
def test_two_settings_are_compared_and_nothing_is_left(
    change: str, model: dict[str, Any], kube: Kube, cli: Cli
) -> None:
    done = benchmarked(cli, "gemma", "--compare", change)

    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["models"]
    assert (first["title"], second["title"]) == ("gemma", change)
    assert first["servers"] != second["servers"]
    for level in (*first["levels"], *second["levels"]):
        assert level["counted"] == level["serverCounted"] == {"prompt": 4 * 48, "generated": 4 * 12}
    assert "it takes no GPU more" in done.stderr
    assert [found["metadata"]["name"] for found in kube.select("llamamodels", "llamamodel.dev/bench")] == []


def test_a_copy_that_cannot_serve_is_told_with_its_reason_and_goes(model: dict[str, Any], kube: Kube, cli: Cli) -> None:
    done = cli("bench", "gemma", "--compare", "model.pvc.path=absent.gguf")

    assert done.returncode == 1
    assert "the copy does not become ready: ModelFileNotFound" in done.stderr
    assert kube.select("llamamodels", "llamamodel.dev/bench") == []


def test_an_interrupt_deletes_the_copy(model: dict[str, Any], kube: Kube) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "bench", "gemma", "-n", kube.namespace, "--compare", "engine.batchSize=512"],
        env=environment(kube.kubeconfig),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: kube.select("llamamodels", "llamamodel.dev/bench"), within=60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert kube.select("llamamodels", "llamamodel.dev/bench") == []


def test_who_may_only_read_sees_what_can_be_read(model: dict[str, Any], kube: Kube, cli: Cli, tmp_path: Path) -> None:
    kube("create", "serviceaccount", "reader")
    kube("create", "role", "reader", "--verb=get,list", "--resource=llamamodels.llamamodel.dev,pods")
    kube("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={kube.namespace}:reader")
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["users"] = [
        {"name": user["name"], "user": {"token": kube("create", "token", "reader").strip()}} for user in config["users"]
    ]
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))

    done = cli("status", "gemma", kubeconfig=file)

    assert done.returncode == 0, done.stderr
    assert "slots not readable: not allowed: " in done.stdout
    assert "pods/proxy" in done.stdout
    assert cli("bench", "gemma", kubeconfig=file).returncode == 2
