"""What answers say of their tokens, and headers of their requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gateway.tracing import given_request_id, trace_id
from llamamodel_operator.core.gateway.usage import Tokens, tokens_of

TIMINGS = b'"timings":{"cache_n":236,"prompt_n":1,"prompt_ms":30.9,"predicted_n":35,"predicted_ms":661.0}'
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (
            b'{"choices":[],"usage":{"completion_tokens":7,"prompt_tokens":30,"total_tokens":37,'
            b'"prompt_tokens_details":{"cached_tokens":20}},"id":"x",' + TIMINGS + b"}",
            (30, 20, 7),
        ),
        (b'data: {"choices":[{"finish_reason":"stop"}],' + TIMINGS + b"}\n\ndata: [DONE]\n\n", (237, 236, 35)),
        (b'{"model":"m","object":"list","usage":{"prompt_tokens":5,"total_tokens":5},"data":[', (5, None, None)),
        (
            b'data: {"type":"response.completed","response":{"output":[],"usage":{"input_tokens":30,"output_tokens":7,'
            b'"total_tokens":37,"input_tokens_details":{"cached_tokens":20}}}}',
            (30, 20, 7),
        ),
        (
            b'event: message_start\ndata: {"message":{"usage":{"cache_read_input_tokens":20,"input_tokens":10,'
            b'"output_tokens":0}}}\n\nevent: message_delta\ndata: {"usage":{"output_tokens":7}}\n\n',
            (30, 20, 7),
        ),
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}', (3, None, 4)),
        (b'{"input_tokens":30}', (None, None, None)),
        (rb'{"content":"{\"usage\":{\"prompt_tokens\":9}}"}', (None, None, None)),
        (b'{"prompt_tokens":"9","completion_tokens":1.5}', (None, None, None)),
        (b"", (None, None, None)),
    ],
    ids=[
        "an answer to chat",
        "a stream without usage",
        "embeddings",
        "responses",
        "messages",
        "with spaces",
        "tokens that are only counted",
        "a text that looks so",
        "other types",
        "nothing",
    ],
)
def test_tokens_are_what_the_server_says_and_never_what_a_text_says(
    said: bytes, tokens: tuple[int | None, int | None, int | None]
) -> None:
    prompt, cached, completion = tokens
    assert tokens_of(said) == Tokens(prompt=prompt, cached=cached, completion=completion)


@given(st.binary())
def test_any_bytes_have_counts_or_none(said: bytes) -> None:
    tokens_of(said)


@pytest.mark.parametrize("value", ["a", "req_1.2-B", "x" * 64])
def test_a_sane_request_id_is_the_clients(value: str) -> None:
    assert given_request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "x" * 65, "a b", "a\n", "ü", 'x"y', "a/b"])
def test_another_request_id_is_not_repeated(value: str | None) -> None:
    assert given_request_id(value) is None


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", ""),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-00f067aa0ba902b7-01\n", ""),
        ("00-1-2-01", ""),
        (None, ""),
    ],
)
def test_a_trace_is_known_by_a_valid_traceparent_alone(traceparent: str | None, found: str) -> None:
    assert trace_id(traceparent) == found
