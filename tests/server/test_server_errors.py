"""Requests that a real llama-server refuses or fails, and what a client of the gateway reads of each.

All that b11669 can be made to say of the table in core/gateway/known_texts.py is provoked here, plain and streaming.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.core.gateway.known_texts import KNOWN_TEXTS, known_text
from llamamodel_operator.core.gateway.translate import Asked, translate, translate_event

from .conftest import BUILD, Server, Start

_TIMEOUT_SEC = 180
_KEY = "the-key"
_RETRY_AFTER_SEC = 7

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES, RERANK = "/v1/responses", "/v1/messages", "/v1/rerank"
STREAMED = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request, and what becomes of it.

    Attributes:
        body: JSON, or what is sent instead.
        says: how the message of llama-server begins.
    """

    path: str
    body: Mapping[str, Any] | bytes
    says: str
    status: int = 400
    code: str | None
    param: str | None = None
    key: str = field(default=_KEY, repr=False)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


HI = user("hi")
LONG = "word " * 3000
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
TOO_LONG = "request ({} tokens) exceeds the available context size (512 tokens), try increasing it"
NO_GRAMMAR = "Failed to initialize samplers: failed to parse grammar"
NO_PARSER = "Unable to generate parser for this template. Automatic parser generation failed: JSON schema "
NO_SCHEMA = "Field 'json_schema': \"json_schema\": JSON schema conversion failed"
NO_JSON = "[json.exception.parse_error.101] parse error at line 1, column "

CASES: Mapping[str, Case] = {
    "a long chat": Case(
        path=CHAT,
        body={"messages": user(LONG)},
        says=TOO_LONG.format(3024),
        code="context_length_exceeded",
        param="messages",
    ),
    "a long prompt": Case(
        path=COMPLETIONS,
        body={"prompt": LONG},
        says=TOO_LONG.format(3002),
        code="context_length_exceeded",
        param="prompt",
    ),
    "a long response": Case(
        path=RESPONSES, body={"input": LONG}, says=TOO_LONG.format(3024), code="context_length_exceeded", param="input"
    ),
    "a long message": Case(
        path=MESSAGES,
        body={"messages": user(LONG), "max_tokens": 5},
        says=TOO_LONG.format(3024),
        code="context_length_exceeded",
        param="messages",
    ),
    "a grammar with an error": Case(
        path=CHAT,
        body={"messages": HI, "grammar": "root ::= ("},
        says=NO_GRAMMAR,
        code="invalid_grammar",
        param="grammar",
    ),
    "a grammar without a root": Case(
        path=COMPLETIONS,
        body={"prompt": "x", "grammar": 'a ::= "b"'},
        says=NO_GRAMMAR,
        code="invalid_grammar",
        param="grammar",
    ),
    "a schema with an error": Case(
        path=CHAT,
        body={"messages": HI, "response_format": schema({"type": "nonsense"})},
        says=NO_PARSER + "error",
        code="invalid_json_schema",
        param="response_format",
    ),
    "a schema with a pattern that is none": Case(
        path=CHAT,
        body={"messages": HI, "response_format": schema({"type": "string", "pattern": "^(a$"})},
        says=NO_PARSER + "conversion failed",
        code="invalid_json_schema",
        param="response_format",
    ),
    "a schema of llama.cpp's own field": Case(
        path=COMPLETIONS,
        body={"prompt": "x", "json_schema": {"type": "nonsense"}},
        says=NO_SCHEMA,
        code="invalid_json_schema",
        param="json_schema",
    ),
    "schema and grammar": Case(
        path=CHAT,
        body={"messages": HI, "json_schema": {}, "grammar": 'root ::= "a"'},
        says="Cannot use both json_schema and grammar",
        code="invalid_grammar",
        param="grammar",
    ),
    "tools and grammar": Case(
        path=CHAT,
        body={"messages": HI, "tools": [TOOL], "grammar": 'root ::= "a"'},
        says="Cannot use custom grammar constraints with tools.",
        code="tools_with_grammar",
        param="tools",
    ),
    "an image": Case(
        path=CHAT,
        body={"messages": user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])},
        says="image input is not supported - hint",
        code="unsupported_content",
        param="messages",
    ),
    "a sound": Case(
        path=CHAT,
        body={"messages": user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])},
        says="audio input is not supported - hint",
        code="unsupported_content",
        param="messages",
    ),
    "an image in a prompt": Case(
        path=COMPLETIONS,
        body={"prompt": {"prompt_string": "<__media__>", "multimodal_data": ["AAAA"]}},
        says="Multimodal data provided, but model does not support multimodal requests",
        code="unsupported_content",
        param="prompt",
    ),
    "embeddings of a model that generates": Case(
        path=EMBEDDINGS,
        body={"input": "x"},
        says="This server does not support embeddings.",
        code="unsupported_endpoint",
    ),
    "ranks of a model that generates": Case(
        path=RERANK,
        body={"query": "x", "documents": ["y"]},
        says="This server does not support reranking.",
        code="unsupported_endpoint",
    ),
    "infilling by a model without the tokens": Case(
        path="/infill",
        body={"input_prefix": "x", "input_suffix": "y"},
        says="Infill is not supported by this model",
        code="unsupported_endpoint",
    ),
    "sound for a model without ears": Case(
        path="/v1/audio/transcriptions",
        body={},
        says="The current model does not support audio input",
        code="unsupported_endpoint",
    ),
    "a path that there is not": Case(
        path="/v1/nonsense", body={}, says="File Not Found", status=404, code="unknown_url"
    ),
    "half of a JSON": Case(path=CHAT, body=b'{"messages": [', says=NO_JSON, code="invalid_json"),
    "nothing": Case(path=COMPLETIONS, body=b"", says=NO_JSON, code="invalid_json"),
    "no UTF-8": Case(path=CHAT, body=b'{"messages": "\xff"}', says=NO_JSON, code="invalid_json"),
    "deep JSON": Case(path=MESSAGES, body=b'{"messages":' + b"[" * 100_000, says=NO_JSON, code="invalid_json"),
    "a list": Case(path=COMPLETIONS, body=b"[]", says="[json.exception.type_error.304] ", code="invalid_value"),
    "no prompt": Case(
        path=COMPLETIONS,
        body={},
        says="[json.exception.out_of_range.403] key 'prompt' not found",
        code="missing_required_parameter",
        param="prompt",
    ),
    "no messages": Case(
        path=CHAT, body={}, says="'messages' is required", code="missing_required_parameter", param="messages"
    ),
    "no messages of Anthropic's kind": Case(
        path=MESSAGES, body={}, says="'messages' is required", code="missing_required_parameter", param="messages"
    ),
    "no input": Case(
        path=RESPONSES, body={}, says="'input' is required", code="missing_required_parameter", param="input"
    ),
    "a message without a role": Case(
        path=CHAT,
        body={"messages": [{"content": "x"}]},
        says="Failed to parse messages: ",
        code="invalid_value",
        param="messages",
    ),
    "a tool of another type": Case(
        path=CHAT,
        body={"messages": HI, "tools": [{"type": "bad"}]},
        says="Failed to parse tools: ",
        code="invalid_value",
        param="tools",
    ),
    "a temperature in words": Case(
        path=CHAT,
        body={"messages": HI, "temperature": "hot"},
        says="Field 'temperature': ",
        code="invalid_value",
        param="temperature",
    ),
    "a format of thoughts that there is not": Case(
        path=CHAT,
        body={"messages": HI, "reasoning_format": "bogus"},
        says="Unknown reasoning format",
        code="invalid_value",
    ),
    "an empty list of prompts": Case(
        path=COMPLETIONS, body={"prompt": []}, says='"prompt" must not be empty', code="invalid_value"
    ),
    "another key": Case(
        path=CHAT, body={"messages": HI}, says="Invalid API Key", status=502, code="upstream_wants_key", key="x"
    ),
    "what the table does not know": Case(
        path=CHAT,
        body={"messages": HI, "tools": [TOOL], "tool_choice": "bogus"},
        says="Invalid tool_choice: bogus",
        code=None,
    ),
}
LOADING = "Loading model"
BUSY = "no slot available"
OVER_CONTEXT = "input (302 tokens) is larger than the max context size"
OVER_BATCH = "input (602 tokens) is too large to process. increase the physical batch size"
FULL = "Context size has been exceeded"
NO_SHIFT = "context shift cannot be used for shared prompt"
OF_OTHER_SERVERS = (LOADING, BUSY, OVER_CONTEXT, OVER_BATCH, FULL, NO_SHIFT)
"""What the tests below make servers say that are started otherwise."""


def asked(path: str, task: Task = Task.GENERATE) -> Asked:
    return Asked(path=path, task=task, retry_after_sec=_RETRY_AFTER_SEC)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An answer, byte for byte."""

    status: int
    body: bytes

    def error(self, path: str, *, says: str, task: Task = Task.GENERATE) -> ApiError:
        """It is an error, and begins as expected."""
        assert self.status >= 400, self.body[:300]
        message = json.loads(self.body)["error"]["message"]
        assert message.startswith(says), message
        error = translate(self.status, self.body, asked=asked(path, task))
        assert message[:999] in (error.llama_cpp or error.message)
        return error


def begin(
    server: Server, path: str, body: Mapping[str, Any] | bytes | None, *, key: str = _KEY
) -> http.client.HTTPConnection:
    """Sends a request, of which nothing is read yet."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=_TIMEOUT_SEC)
    data = json.dumps(body).encode() if isinstance(body, Mapping) else body
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("GET" if data is None else "POST", path, data, headers)
    return connection


def ask(server: Server, path: str, body: Mapping[str, Any] | bytes | None, *, key: str = _KEY) -> Raw:
    connection = begin(server, path, body, key=key)
    try:
        answer = connection.getresponse()
        return Raw(status=answer.status, body=answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def small(start_server: Start) -> Iterator[Server]:
    """One with 512 tokens of context, and a key."""
    with start_server("--ctx-size", "512", "--api-key", _KEY) as server:
        yield server


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_is_told_as_openai_does(name: str, stream: bool, small: Server) -> None:
    case = CASES[name]
    body = case.body if isinstance(case.body, bytes) else {"max_tokens": 2, **case.body, "stream": stream}
    answer = ask(small, case.path, body, key=case.key)
    error = answer.error(case.path, says=case.says)
    assert (error.status, error.code, error.param) == (case.status, case.code, case.param)


def test_the_counts_of_a_request_that_is_too_long_are_told(small: Server) -> None:
    answer = ask(small, CHAT, {"messages": user(LONG)})
    error = answer.error(CHAT, says="request")
    assert (error.prompt_tokens, error.context_size) == (3024, 512)
    assert "512 tokens. However, your request has 3024 tokens" in error.message


def test_what_is_refused_without_a_word_is_an_error_as_well(small: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(small.url).netloc, timeout=_TIMEOUT_SEC)
    connection.request("GET", "/v1/models", headers={"X": "x" * 20_000})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert (answer.status, body) == (400, b"")
    assert translate(400, body, asked=asked("/v1/models")).type == "invalid_request_error"


def test_a_server_that_loads_says_so_to_every_request(start_server: Start, tmp_path: Path) -> None:
    endless = tmp_path / "model.gguf"
    os.mkfifo(endless)
    with start_server("--model", str(endless), ready=False) as server:
        for path in (*STREAMED, EMBEDDINGS):
            error = ask(server, path, {"stream": True}).error(path, says=LOADING)
            assert (error.status, error.type, error.code) == (503, "service_unavailable", "model_loading")
            assert error.retry_after_sec == _RETRY_AFTER_SEC


def test_a_server_whose_slots_are_taken_says_so(start_server: Start) -> None:
    with start_server() as server:
        busy = begin(server, COMPLETIONS, {"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True})
        busy.getresponse().readline()
        error = ask(server, "/slots?fail_on_no_slot=1", None).error("/slots", says=BUSY)
        busy.close()
    assert (error.status, error.code, error.retry_after_sec) == (503, "slot_unavailable", _RETRY_AFTER_SEC)


def test_an_input_that_one_batch_or_context_does_not_hold(start_server: Start) -> None:
    arguments = ["--embeddings", "--pooling", "mean", "--ctx-size", "512", "--ubatch-size", "512"]
    with start_server(*arguments, "--parallel", "2", "--no-kv-unified") as server:
        larger = ask(server, EMBEDDINGS, {"input": "word " * 300})
        too_large = ask(server, EMBEDDINGS, {"input": "word " * 600})
    error = larger.error(EMBEDDINGS, says=OVER_CONTEXT, task=Task.EMBED)
    assert (error.status, error.code, error.context_size) == (400, "context_length_exceeded", 256)
    error = too_large.error(EMBEDDINGS, says=OVER_BATCH, task=Task.EMBED)
    assert (error.status, error.code, error.prompt_tokens, error.param) == (400, "input_too_large", 602, "input")
    assert "at most 512 tokens at once" in error.message


def error_at_the_end_of(stream: bytes, path: str, *, says: str) -> ApiError:
    """Of a stream in which all events but the last one are none."""
    *others, last = stream.rstrip(b"\n").split(b"\n\n")
    assert [event for event in others if translate_event(event, asked=asked(path))] == []
    error = translate_event(last, asked=asked(path))
    assert error is not None, last
    assert (error.llama_cpp or "").startswith(says)
    return error


@pytest.fixture(scope="module")
def shared(start_server: Start) -> Iterator[Server]:
    """One whose two slots share 256 tokens."""
    with start_server("--ctx-size", "256", "--parallel", "2", "--kv-unified") as server:
        yield server


@pytest.mark.parametrize("path", STREAMED)
def test_a_context_that_gets_full_in_mid_stream_is_told_in_the_stream(path: str, shared: Server) -> None:
    """Two requests that would fit one by one end each other."""
    prompt = "word " * 90
    field = {CHAT: "messages", MESSAGES: "messages", COMPLETIONS: "prompt", RESPONSES: "input"}[path]
    body = {field: user(prompt) if field == "messages" else prompt, "ignore_eos": True, "stream": True}
    streaming = begin(shared, path, {**body, "max_tokens": 140, "max_output_tokens": 140})
    answer = streaming.getresponse()
    first = answer.readline()
    other = begin(shared, COMPLETIONS, {"prompt": prompt, "ignore_eos": True, "max_tokens": 140})
    error = error_at_the_end_of(first + answer.read(), path, says=FULL)
    plain = other.getresponse()
    before = Raw(status=plain.status, body=plain.read()).error(COMPLETIONS, says=FULL)
    streaming.close()
    other.close()
    assert answer.status == 200
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", field)
    assert (before.status, before.code, before.param) == (400, "context_length_exceeded", "prompt")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_two_answers_that_one_context_does_not_hold(stream: bool, start_server: Start) -> None:
    arguments = ["--ctx-size", "512", "--parallel", "2", "--no-kv-unified", "--context-shift"]
    with start_server(*arguments) as server:
        body = {"prompt": "word " * 200, "n": 2, "max_tokens": 100, "ignore_eos": True, "stream": stream}
        answer = ask(server, COMPLETIONS, body)
    if stream:
        error = error_at_the_end_of(answer.body, COMPLETIONS, says=NO_SHIFT)
    else:
        error = answer.error(COMPLETIONS, says=NO_SHIFT)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "n")


def test_all_of_the_table_that_this_build_can_say_is_provoked() -> None:
    provoked = [known_text(says) for says in (*OF_OTHER_SERVERS, *(case.says for case in CASES.values()))]
    build = int(BUILD.removeprefix("b"))
    assert {found[0] for found in provoked if found} == {known for known in KNOWN_TEXTS if build in known.provoked}
