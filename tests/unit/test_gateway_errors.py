"""What a client of OpenAI reads when llama-server refuses or fails, whichever build it is.

`llama_server_errors.json` has what was recorded: what servers of four builds said (`said …`), what the sources of
others make (`composed from …`, in the form of that build's format_error_response), and what was reported. `becomes` is
status, type, code and param. tests/server/test_server_errors.py makes b11669 say all of it again that it can be made to
say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway import errors
from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.core.gateway.known_texts import KNOWN_TEXTS, KnownText, Moment, known_text
from llamamodel_operator.core.gateway.translate import LONGEST_ANSWER_BYTES, Asked, translate, translate_event

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "llama_server_errors.json").read_text())
CHAT = Asked(path="/v1/chat/completions", task=Task.GENERATE, retry_after_sec=7)


def asked(path: str) -> Asked:
    return Asked(path=path, task=Task.GENERATE, retry_after_sec=7)


def translated(record: dict[str, Any]) -> ApiError:
    if "event" not in record:
        return translate(record["status"], record["body"].encode(), asked=asked(record["path"]))
    error = translate_event(record["event"].encode(), asked=asked(record["path"]))
    assert error is not None
    return error


def said(record: dict[str, Any]) -> str:
    """Its message."""
    text: str = record["body"] if "body" in record else record["event"].strip().rpartition("\n")[2].partition(": ")[2]
    if not text:
        return ""
    document = json.loads(text)
    message: str = document.get("error", document)["message"]
    return message


@pytest.mark.parametrize("record", RECORDED, ids=lambda r: f"{r['build']}-{r.get('status', 'event')}-{said(r)[:40]}")
def test_what_was_recorded_becomes_what_a_client_can_act_on(record: dict[str, Any]) -> None:
    error = translated(record)
    assert [error.status, error.type, error.code, error.param] == record["becomes"]
    assert said(record)[:999] in (error.llama_cpp or error.message)


def records_of(known: KnownText) -> list[dict[str, Any]]:
    return [record for record in RECORDED if (found := known_text(said(record))) and found[0] is known]


@pytest.mark.parametrize("known", KNOWN_TEXTS, ids=lambda known: known.pattern[:40])
def test_each_row_of_the_table_was_recorded_as_it_says(known: KnownText) -> None:
    records = records_of(known)
    by_servers = {record["build"] for record in records if record["source"].startswith("said ")}
    assert by_servers >= set(known.provoked)
    assert Moment.BEFORE not in known.moments or any("body" in record for record in records)
    streamed = {record["build"] or 0 for record in records if "event" in record}
    assert bool(streamed) is (Moment.WITHIN in known.moments or known.streamed_until is not None)
    if known.streamed_until is not None:
        assert max(streamed) == known.streamed_until


@pytest.mark.parametrize("known", KNOWN_TEXTS, ids=lambda known: known.pattern[:40])
def test_the_example_of_each_row_is_known_by_that_row(known: KnownText) -> None:
    found = known_text(known.example)
    assert found is not None
    assert found[0] is known


def body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"code": 400, "message": message, "type": "invalid_request_error", **more}}).encode()


def test_an_error_has_the_shape_of_openai_and_the_original_text() -> None:
    text = "request (3024 tokens) exceeds the available context size (512 tokens), try increasing it"
    error = translate(400, body(text, n_prompt_tokens=3024, n_ctx=512), asked=CHAT)
    assert error.body() == {
        "error": {
            "message": "This model's maximum context length is 512 tokens. However, your request has 3024 tokens."
            " Please reduce its length.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
            "n_prompt_tokens": 3024,
            "n_ctx": 512,
            "llama_cpp": text,
        }
    }
    assert error.headers() == {}


def test_the_counts_come_from_the_fields_where_the_text_has_none() -> None:
    text = "the request exceeds the available context size, try increasing it"
    error = translate(400, body(text, n_prompt_tokens=3024, n_ctx=512), asked=CHAT)
    assert "512 tokens. However, your request has 3024 tokens" in error.message


@pytest.mark.parametrize("count", [0, -1, True, "many", "9" * 10_000, 10**30, 1.5, None, [], {}])
def test_counts_that_are_none_are_left_out(count: object) -> None:
    text = "the request exceeds the available context size, try increasing it"
    error = translate(400, body(text, n_prompt_tokens=count, n_ctx=512), asked=CHAT)
    assert error.prompt_tokens is None
    assert error.message == "Your request does not fit into this model's context. Please reduce its length."


def test_a_batch_is_no_context_size() -> None:
    text = "input (302 tokens) is too large to process. increase the physical batch size (current batch size: 64)"
    error = translate(500, body(text), asked=asked("/v1/embeddings"))
    assert "at most 64 tokens at once (spec.engine.microBatchSize). However, your input has 302" in error.message
    assert (error.status, error.param, error.prompt_tokens, error.context_size) == (400, "input", 302, None)


@pytest.mark.parametrize(
    ("text", "code"), [("Loading model", "model_loading"), ("no slot available", "slot_unavailable")]
)
def test_what_passes_by_itself_says_when_to_try_again(text: str, code: str) -> None:
    error = translate(503, body(text), asked=CHAT)
    assert (error.status, error.code) == (503, code)
    assert error.body()["error"]["retry_after"] == 7
    assert error.headers() == {"Retry-After": "7"}


def test_a_key_that_the_server_wants_is_no_fault_of_the_clients_key() -> None:
    error = translate(401, body("Invalid API Key"), asked=CHAT)
    assert (error.status, error.code, error.llama_cpp) == (502, "upstream_wants_key", "Invalid API Key")


@pytest.mark.parametrize(
    ("task", "path", "endpoint"),
    [
        (Task.GENERATE, "/v1/embeddings", "/v1/chat/completions"),
        (Task.EMBED, "/v1/rerank", "/v1/embeddings"),
        (Task.RERANK, "/v1/chat/completions", "/v1/rerank"),
    ],
)
def test_a_request_of_another_task_is_told_where_to_go(task: Task, path: str, endpoint: str) -> None:
    text = "This server does not support reranking. Start it with `--reranking`"
    error = translate(501, body(text), asked=Asked(path=path, task=task, retry_after_sec=7))
    assert error.message == f"This model does not answer {path}: it is served to {task}. Use {endpoint}."
    assert (error.status, error.code, error.llama_cpp) == (400, "unsupported_endpoint", text)


def test_what_says_where_the_grammar_is_wrong_is_kept() -> None:
    text = "Field 'json_schema': \"json_schema\": JSON schema conversion failed:\nInvalid pattern ^(a$"
    error = translate(400, body(text), asked=asked("/v1/completions"))
    assert error.message == "The JSON schema cannot be used: JSON schema conversion failed:\nInvalid pattern ^(a$"


def test_text_that_nobody_knows_passes_in_the_shape_of_openai() -> None:
    error = translate(400, body("a text of tomorrow", type="future_error", code="a_code"), asked=CHAT)
    assert error == ApiError(status=400, message="a text of tomorrow", type="future_error", code="a_code")


@pytest.mark.parametrize(
    ("status", "content", "message", "kind"),
    [
        (503, b"upstream connect error", "upstream connect error", "server_error"),
        (400, b"", "The model's server answered 400 without a text.", "invalid_request_error"),
        (500, b"<html>no</html>", "<html>no</html>", "server_error"),
        (404, b'{"error": "no such thing"}', "no such thing", "invalid_request_error"),
        (500, b'{"detail": [1]}', '{"detail": [1]}', "server_error"),
        (500, b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2, "server_error"),
        (500, b"[" * 100_000, "[" * 999 + "…", "server_error"),
    ],
)
def test_what_is_no_error_of_llama_server_passes_as_text(status: int, content: bytes, message: str, kind: str) -> None:
    error = translate(status, content, asked=CHAT)
    assert error == ApiError(status=status, message=message, type=kind)


def test_a_status_that_is_none_of_an_error_is_not_passed_on() -> None:
    assert translate(200, body("odd"), asked=CHAT).status == 400
    assert translate(302, b"moved", asked=CHAT).status == 502


def test_a_text_that_a_user_wrote_is_taken_for_none_of_the_servers() -> None:
    error = translate(400, body("Unknown: 'Loading model' Invalid API Key no slot available"), asked=CHAT)
    assert (error.status, error.code) == (400, None)


def test_a_list_of_tools_that_comes_back_is_cut() -> None:
    error = translate(500, body("Failed to parse tools: no; tools = " + "x" * 100_000), asked=CHAT)
    assert (error.status, error.code) == (400, "invalid_value")
    assert len(error.message) == 1000


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"delta":{"content":"an error"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"{\\"error\\":1}"}}]}\n\n',
        b'event: response.created\ndata: {"type":"response.created","error":null}\n\n',
        b"data: error\n\n",
        b'data: {"error":null}\n\n',
        b"data: [DONE]\n\n",
        b": error\n\n",
        b"",
    ],
)
def test_an_event_that_is_no_error_stays_one(event: bytes) -> None:
    assert translate_event(event, asked=CHAT) is None


@pytest.mark.parametrize(
    "event",
    [
        b'data:{"error":{"message":"Compute error."}}',
        b'data: {"error":\r\ndata: {"message":"Compute error."}}\r\n\r\n',
        b'id: 1\nevent: error\ndata: {"message":"Compute error."}\n\n',
        b'error: {"message":"Compute error."}\n\n',
        b"event: error\ndata: Compute error.\n\n",
    ],
)
def test_an_event_is_read_as_the_standard_has_it(event: bytes) -> None:
    error = translate_event(event, asked=CHAT)
    assert error == ApiError(status=500, message="Compute error.", type="server_error")


def test_an_error_goes_into_a_stream_as_its_clients_look_for_it() -> None:
    error = errors.upstream_died()
    body = error.body()
    assert error.event(path="/v1/chat/completions") == b"data: " + orjson.dumps(body) + b"\n\n"
    of_anthropic = b"data: " + orjson.dumps({"type": "error", **body}) + b"\n\n"
    assert error.event(path="/v1/messages") == b"event: error\n" + of_anthropic
    again = translate_event(error.event(path="/v1/messages"), asked=CHAT)
    assert again is not None
    assert (again.message, again.type, again.code) == (error.message, error.type, error.code)


# whatever comes

MESSAGES = st.one_of(
    st.text(),
    st.builds(lambda known, rest: known.example + rest, st.sampled_from(KNOWN_TEXTS), st.text()),
    st.builds(
        "request ({} tokens) exceeds the available context size ({} tokens)".format, st.integers(), st.integers()
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "message": MESSAGES | JSON,
        "code": JSON,
        "type": JSON,
        "n_prompt_tokens": JSON,
        "n_ctx": JSON,
    },
)
BODIES = st.binary() | DOCUMENTS.flatmap(
    lambda inner: st.sampled_from([json.dumps({"error": inner}).encode(), json.dumps(inner).encode()])
)
PATHS = st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/infill"])


def check(error: ApiError) -> None:
    """What holds of every error."""
    assert 400 <= error.status < 600
    assert len(orjson.dumps(error.body())) < 16_000
    assert error.message
    inner = error.body()["error"]
    assert {"message", "type", "param", "code"} <= set(inner)
    assert inner["code"] is None or isinstance(inner["code"], str)
    assert translate_event(error.event(path="/v1/messages"), asked=CHAT) is not None


@given(status=st.integers(), content=BODIES, path=PATHS, task=st.sampled_from(Task))
def test_any_answer_becomes_an_error(status: int, content: bytes, path: str, task: Task) -> None:
    check(translate(status, content, asked=Asked(path=path, task=task, retry_after_sec=7)))


@given(prefix=st.sampled_from([b"", b"data: ", b"data:", b"error: ", b"event: error\ndata: "]), content=BODIES)
def test_any_event_is_read(prefix: bytes, content: bytes) -> None:
    error = translate_event(prefix + content, asked=CHAT)
    if error is not None:
        check(error)


@pytest.mark.parametrize("length", [LONGEST_ANSWER_BYTES - 100, LONGEST_ANSWER_BYTES, LONGEST_ANSWER_BYTES * 4])
def test_of_a_huge_answer_little_is_kept(length: int) -> None:
    check(translate(500, body("x" * length), asked=CHAT))
    check(translate(500, b'{"error":' * (length // 9), asked=CHAT))
    assert translate_event(b"event: error\ndata: " + b"x" * LONGEST_ANSWER_BYTES, asked=CHAT) is None


# the gateway's own


def test_an_unknown_model_is_told_with_names_that_are_near() -> None:
    error = errors.model_not_found("qwen3-8", names=["qwen3-8b", "gemma", "team/qwen3-8b"])
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message == (
        "The model `qwen3-8` does not exist or you do not have access to it."
        " Did you mean `qwen3-8b` or `team/qwen3-8b`?"
    )


def test_a_name_that_is_had_by_none_of_those_served_under_it_is_told_with_some_of_them() -> None:
    error = errors.model_not_found("chat", names=["a/chat", "b/chat"], full_names=["a/chat", "b/chat"])
    assert error.message == (
        "The model `chat` does not exist or you do not have access to it."
        " What is served as `chat` answers to its full name alone: `a/chat` or `b/chat`."
    )
    many = errors.model_not_found("chat", names=[], full_names=[f"team-{number}/chat" for number in range(1000)])
    assert many.message.count("/chat") == 5


def test_a_name_of_any_length_is_looked_up_and_repeated_in_part() -> None:
    error = errors.model_not_found("x" * 1_000_000, names=[f"model-{number}" for number in range(100_000)])
    assert len(error.message) < 300


def test_a_model_that_is_not_served_has_the_reason_of_the_llamamodel() -> None:
    error = errors.model_unavailable("m", reason=Reason.SUSPENDED, message="spec.suspend is true" + "." * 5000)
    assert (error.status, error.type, error.code) == (503, "service_unavailable", "model_unavailable")
    assert error.message.startswith("The model `m` is not served (Suspended): spec.suspend is true")
    assert error.headers() == {}


def test_those_that_pass_say_when() -> None:
    assert errors.model_loading("m", retry_after_sec=30).headers() == {"Retry-After": "30"}
    assert errors.rate_limited("8 wait for this model", retry_after_sec=2).headers() == {"Retry-After": "2"}


@dataclass(frozen=True)
class Case:
    error: ApiError
    status: int
    code: str


OWN = [
    Case(errors.model_loading("m", retry_after_sec=30), 503, "model_loading"),
    Case(errors.rate_limited("8 wait for this model", retry_after_sec=2), 429, "rate_limit_exceeded"),
    Case(errors.timed_out(timeout_sec=600), 504, "timeout"),
    Case(errors.upstream_died(), 502, "upstream_died"),
    Case(errors.body_too_large(limit_bytes=1), 413, "request_too_large"),
    Case(errors.invalid_api_key(), 401, "invalid_api_key"),
    Case(errors.tools_with_grammar(), 400, "tools_with_grammar"),
    Case(errors.wrong_task(task=Task.EMBED, path="/v1/chat/completions"), 400, "unsupported_endpoint"),
]


@pytest.mark.parametrize("case", OWN, ids=lambda case: case.code)
def test_the_gateways_own_errors_have_status_and_code(case: Case) -> None:
    assert (case.error.status, case.error.code) == (case.status, case.code)
    assert case.error.llama_cpp is None
    check(case.error)
