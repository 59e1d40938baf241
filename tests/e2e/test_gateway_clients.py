"""Official clients against the gateway in the cluster, with the real model: what they return, and what they raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from e2e.conftest import GATEWAY, Environment, serve
from support.kube import Kube, condition, eventually, llama_model
from support.openai_clients import CLIENTS, Says

pytestmark = pytest.mark.e2e

SMALL = {"contextSize": 1024, "parallelSlots": 1}
HELLO = [{"role": "user", "content": "Say hello."}]
TOO_LONG = "word " * 3000

Call = Callable[..., Says]


@pytest.fixture(scope="module")
def base_url(environment: Environment, gateway: str) -> Iterator[str]:
    with environment.system.port_forward(GATEWAY, 80) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def models(kube: Kube, gateway: str) -> None:
    """`chat` and `vectors` serve; `asleep` is suspended; `broken` cannot start; all but the first by full names."""
    broken = llama_model("broken", path="nowhere.gguf", engine=SMALL)
    kube.apply(llama_model("asleep", suspend=True, engine=SMALL), broken)
    serve(kube, llama_model("gemma", servedModelName="chat", engine=SMALL))
    serve(kube, llama_model("vectors", task="embed", engine={**SMALL, "pooling": "mean"}))
    for name, reason in (("asleep", "Suspended"), ("broken", "ModelFileNotFound")):
        eventually(lambda n=name, r=reason: reason_of(kube, n) == r, within=60)  # type: ignore[misc]


def reason_of(kube: Kube, name: str) -> str:
    return str(condition(kube.must_get("lm", name), "Ready").get("reason"))


@pytest.fixture(params=CLIENTS)
def call(request: pytest.FixtureRequest, base_url: str, models: None) -> Call:
    """One method of a client, by name, with its parameters."""
    client = CLIENTS[request.param]

    def say(method: str, /, **body: Any) -> Says:
        (said,) = client(base_url, "any", [(method, body)])
        return said

    return say


def test_chat_and_completions_answer_whole_and_streamed(call: Call) -> None:
    same: dict[str, Any] = {"model": "chat", "max_tokens": 6, "temperature": 0}
    whole = call("chat", messages=HELLO, **same)
    assert whole["tokens"] > 0, whole
    streamed = call("chat_stream", messages=HELLO, **same)
    assert streamed["text"] == whole["text"]
    assert streamed["pieces"] > 1
    completed = call("completion", prompt="The capital of France is", **same)
    assert completed["text"].strip()
    assert call("completion_stream", prompt="The capital of France is", **same)["text"] == completed["text"]


def test_embeddings_have_the_width_of_the_model(call: Call, kube: Kube) -> None:
    assert call("embedding", model=f"{kube.namespace}/vectors", input="x") == {"width": 640}


def test_models_are_listed_by_name_whatever_their_state(call: Call, kube: Kube) -> None:
    assert {"chat", "vectors", "asleep", "broken"} <= set(call("models")["ids"])
    full = f"{kube.namespace}/vectors"
    assert call("model", model=full) == {"id": full}


@pytest.mark.parametrize(
    ("method", "body", "raised", "status", "code"),
    [
        ("chat", {"model": "chatt", "messages": HELLO}, "NotFoundError", 404, "model_not_found"),
        ("model", {"model": "chatt"}, "NotFoundError", 404, "model_not_found"),
        ("embedding", {"model": "chat", "input": "x"}, "BadRequestError", 400, "unsupported_endpoint"),
        ("chat", {"model": "vectors", "messages": HELLO}, "BadRequestError", 400, "unsupported_endpoint"),
        ("completion", {"model": "chat", "prompt": TOO_LONG}, "BadRequestError", 400, "context_length_exceeded"),
        ("completion_stream", {"model": "chat", "prompt": TOO_LONG}, "BadRequestError", 400, "context_length_exceeded"),
        ("chat", {"model": "asleep", "messages": HELLO}, "InternalServerError", 503, "model_unavailable"),
        ("chat_stream", {"model": "broken", "messages": HELLO}, "InternalServerError", 503, "model_unavailable"),
        ("chat", {"model": "chat", "messages": [{"role": "user", "content": 7}]}, "BadRequestError", 400, None),
        ("chat", {"model": "chat", "messages": HELLO, "max_tokens": "many"}, "BadRequestError", 400, None),
        ("completion", {"model": "chat", "prompt": "x" * (33 << 20)}, "APIStatusError", 413, "request_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_are_raised_as_the_client_types_them(
    call: Call, method: str, body: dict[str, Any], raised: str, status: int, code: str | None
) -> None:
    said = call(method, **body)
    names = {raised, "APIError"} if raised == "APIStatusError" else {raised}  # in JavaScript the base is its own class
    assert said.get("raised") in names, said
    assert said["status"] == status
    assert code is None or said["code"] == code
    assert said["message"]


def test_anthropics_client_gets_a_message_and_its_own_exceptions(base_url: str, models: None) -> None:
    with anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key="any", max_retries=0) as client:
        hello: Any = [{"role": "user", "content": "Say hello."}]
        answer = client.messages.create(model="chat", max_tokens=6, messages=hello)
        assert answer.usage.output_tokens > 0
        assert answer.content[0].type == "text"
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            client.messages.create(model="chatt", max_tokens=6, messages=hello)
