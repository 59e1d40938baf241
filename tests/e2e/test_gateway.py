"""The gateway, installed by the chart: models of the cluster at one address, and why one does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import serve
from support.kube import Kube, eventually, llama_model

pytestmark = pytest.mark.e2e

_ASK = """
import http.client, json, sys

host, method, path, body = sys.argv[1:5]
connection = http.client.HTTPConnection(host, 80, timeout=120)
connection.request(method, path, body.encode() or None, {"Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""
ENGINE = {"contextSize": 1024, "parallelSlots": 1}
HELLO = [{"role": "user", "content": "Say hello."}]

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def ask(gateway: str, in_cluster: Callable[..., str]) -> Ask:
    """Status and text."""

    def call(method: str, path: str, **body: Any) -> tuple[int, str]:
        said = in_cluster(_ASK, gateway, method, path, json.dumps(body) if body else "")
        status, _, text = json.loads(said)
        return status, text

    return call


@pytest.fixture(scope="module")
def gemma(kube: Kube, gateway: str) -> Iterator[dict[str, Any]]:
    yield serve(kube, llama_model("gemma", servedModelName="gemma-3", engine=ENGINE))
    kube.delete("llamamodel", "gemma")


def error_of(text: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(text)["error"]
    return error


def test_a_model_answers_by_its_name_and_by_its_full_name(gemma: dict[str, Any], ask: Ask, kube: Kube) -> None:
    for name in ("gemma-3", f"{kube.namespace}/gemma"):
        status, text = ask("POST", "/v1/chat/completions", model=name, messages=HELLO, max_tokens=4)
        assert status == 200, text
        assert json.loads(text)["usage"]["completion_tokens"] > 0
    _, text = ask("GET", "/v1/models")
    (listed,) = [one for one in json.loads(text)["data"] if one["owned_by"] == kube.namespace]
    assert (listed["id"], listed["llamamodel"]["ready"]) == ("gemma-3", True)


def test_a_stream_ends_as_openais_do(gemma: dict[str, Any], ask: Ask) -> None:
    status, text = ask("POST", "/v1/chat/completions", model="gemma-3", messages=HELLO, max_tokens=4, stream=True)
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")
    assert len(text.split("\n\n")) > 3


def test_errors_have_openais_form(gemma: dict[str, Any], ask: Ask) -> None:
    status, text = ask("POST", "/v1/chat/completions", model="gema-3", messages=HELLO)
    assert (status, error_of(text)["code"]) == (404, "model_not_found")
    assert "`gemma-3`" in error_of(text)["message"]
    status, text = ask("POST", "/v1/embeddings", model="gemma-3", input="x")
    assert (status, error_of(text)["code"]) == (400, "unsupported_endpoint")
    long = [{"role": "user", "content": "word " * 3000}]
    status, text = ask("POST", "/v1/chat/completions", model="gemma-3", messages=long)
    assert (status, error_of(text)["code"]) == (400, "context_length_exceeded")
    assert error_of(text)["n_ctx"] == 1024


def test_a_model_that_is_suspended_says_so_and_is_found_again(gemma: dict[str, Any], ask: Ask, kube: Kube) -> None:
    def chat() -> tuple[int, str]:
        return ask("POST", "/v1/chat/completions", model="gemma-3", messages=HELLO, max_tokens=2)

    kube.patch("lm", "gemma", {"spec": {"suspend": True}})

    def suspended() -> bool:
        status, text = chat()
        assert (status, error_of(text)["code"]) == (503, "model_unavailable"), text
        return "Suspended" in error_of(text)["message"]

    eventually(suspended, within=60, pause=1)
    kube.patch("lm", "gemma", {"spec": {"suspend": False}})
    eventually(lambda: chat()[0] == 200, within=120, pause=1)
