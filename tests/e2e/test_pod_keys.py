"""Keys between gateway and pods: who gets in, what a Secret without a key does, and how keys are exchanged."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from e2e.conftest import GATEWAY, OPERATOR_NAMESPACE, ROOT, Environment, pod_of, serve, served
from support.kube import Kube, condition, eventually, llama_model

pytestmark = pytest.mark.e2e

RELEASE_SECRET = "pod-keys"
ENGINE = {"contextSize": 1024, "parallelSlots": 1}
CHAT = {"model": "gemma", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 2}
RENEWED_WITHIN_SEC = 240
"""The kubelet takes up to a minute or two to renew a mounted Secret."""
_ASK = """
import http.client, json, sys

host, path, key, body = sys.argv[1:5]
connection = http.client.HTTPConnection(host, timeout=120)
headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
connection.request("POST" if body else "GET", path, body.encode() or None, headers)
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""

Ask = Callable[..., tuple[int, str]]


def secret(name: str, entries: Mapping[str, str]) -> dict[str, Any]:
    data = {entry: base64.b64encode(text.encode()).decode() for entry, text in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def locked(name: str, *, keys: str = "llama-keys", **spec: Any) -> dict[str, Any]:
    return llama_model(name, engine=ENGINE, apiKeySecretRef={"name": keys}, **spec)


@pytest.fixture(scope="module")
def with_keys(environment: Environment, kube: Kube) -> Iterator[None]:
    """Gateway and operator have the key `first` for the namespace, and so have its models."""
    environment.system.apply(secret(RELEASE_SECRET, {kube.namespace: "first\n"}))
    kube.apply(secret("llama-keys", {"api-keys": "# of this namespace\nfirst\n"}))
    environment.deploy_operator("gateway.enabled=true", "gateway.replicas=1", f"podKeys.secretName={RELEASE_SECRET}")
    for deployment in ("llamamodel-operator", GATEWAY):
        environment.system("rollout", "status", f"deployment/{deployment}", "--timeout=120s", timeout=130)
    yield
    environment.deploy_operator()
    environment.system.delete("secret", RELEASE_SECRET)


@pytest.fixture(scope="module")
def ask(with_keys: None, in_cluster: Callable[..., str]) -> Ask:
    """Status and text."""

    def call(host: str, path: str, *, key: str = "", **body: Any) -> tuple[int, str]:
        status, text = json.loads(in_cluster(_ASK, host, path, key, json.dumps(body) if body else ""))
        return status, text

    return call


@pytest.fixture(scope="module")
def gemma(kube: Kube, with_keys: None) -> Iterator[dict[str, Any]]:
    yield serve(kube, locked("gemma"))
    kube.delete("llamamodel", "gemma")


def chat(ask: Ask) -> int:
    """Status of a chat through the gateway."""
    return ask(f"{GATEWAY}.{OPERATOR_NAMESPACE}.svc", "/v1/chat/completions", **CHAT)[0]


def props(ask: Ask, kube: Kube, key: str = "") -> int:
    """Status of a question to the pod itself."""
    return ask(f"{pod_of(kube, 'gemma')['status']['podIP']}:8080", "/props", key=key)[0]


def test_a_model_is_proven_and_served_by_its_key_and_its_pod_is_shut(
    gemma: dict[str, Any], ask: Ask, kube: Kube
) -> None:
    assert "ServerNotReached" not in str(gemma["status"].get("findings"))
    assert chat(ask) == 200
    assert [props(ask, kube, key) for key in ("", "wrong", "first")] == [401, 401, 200]
    assert ask(f"{pod_of(kube, 'gemma')['status']['podIP']}:8080", "/health")[0] == 200


def test_the_command_line_reads_the_secret_by_its_users_rights(gemma: dict[str, Any], kube: Kube) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "LLAMAMODEL_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "llamamodel_operator.cli.main", "status", "gemma", "-n", kube.namespace, "-o", "json"],
        env=kept | {"PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kube.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (server,) = json.loads(done.stdout)["servers"]
    assert (len(server["slots"]), server["notReadable"]) == (1, {})


def test_without_a_secret_or_a_key_in_it_nothing_is_started_and_the_reason_is_true(kube: Kube, with_keys: None) -> None:
    def ready() -> dict[str, Any]:
        return condition(kube.get("lm", "shut"), "Ready")

    kube.apply(locked("shut", keys="later"))
    eventually(lambda: ready().get("reason") == "ApiKeysNotFound", within=120)
    assert 'secret "later" not found' in ready()["message"]
    kube.apply(secret("later", {"other": "first"}))
    eventually(lambda: "references non-existent secret key: api-keys" in ready()["message"], within=200)
    assert ready()["reason"] == "ApiKeysNotFound"
    kube.apply(secret("later", {"api-keys": "# none yet\n"}))
    eventually(lambda: ready().get("reason") == "ApiKeysUnusable", within=200)
    assert "expected a key on a line of its own, found none" in ready()["message"]
    kube.apply(secret("later", {"api-keys": "first"}))
    kube.delete("pod", pod_of(kube, "shut")["metadata"]["name"])
    served(kube, "shut")
    kube.delete("llamamodel", "shut")


def test_keys_are_exchanged_while_the_model_is_served(
    gemma: dict[str, Any], ask: Ask, kube: Kube, environment: Environment
) -> None:
    def rolled_with(*keys: str) -> None:
        """The namespace's file has these, and its pods have been started with it."""
        kube.apply(secret("llama-keys", {"api-keys": "\n".join(keys)}))
        serve(kube, locked("gemma", podAnnotations={"keys-of": "-".join(keys)}))
        assert chat(ask) == 200

    rolled_with("first", "second")
    assert [props(ask, kube, key) for key in ("", "first", "second")] == [401, 200, 200]
    environment.system.apply(secret(RELEASE_SECRET, {kube.namespace: "second"}))
    renewed = "keys of pods in 1 namespaces"

    def both_know() -> bool:
        logs = [environment.system("logs", f"deployment/{name}") for name in ("llamamodel-operator", GATEWAY)]
        return all(log.count(renewed) == 2 for log in logs)

    eventually(both_know, within=RENEWED_WITHIN_SEC, pause=2)
    assert chat(ask) == 200
    rolled_with("second")
    assert [props(ask, kube, key) for key in ("", "first", "second")] == [401, 401, 200]
    model = kube.must_get("lm", "gemma")
    assert "ServerNotReached" not in str(model["status"].get("findings"))
