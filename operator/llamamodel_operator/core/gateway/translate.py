"""From what llama-server answers to what a client of OpenAI understands: pure, over the table of known texts.

Nothing here raises, whatever the bytes are, and nothing of unbounded size is kept. What no row of the table knows
passes in OpenAI's shape, with its own text as the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway.errors import INVALID_REQUEST, SERVER_ERROR, ApiError, bounded, wrong_task
from llamamodel_operator.core.gateway.known_texts import INPUT, known_text

__all__ = ["LONGEST_ANSWER_BYTES", "Asked", "translate", "translate_event"]

LONGEST_ANSWER_BYTES = 256 * 1024
"""What is looked at of an answer or an event; nobody needs to read more of one that has failed. An error can be as long
as the list of tools that it repeats."""
_MOST_TOKENS = 2**40
"""More is no count, and more than 64 bits cannot be written as JSON."""
_WORD = re.compile(r"[A-Za-z][\w.-]{0,63}")
_INPUTS: Mapping[str, str] = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
    "/v1/rerank": "documents",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of whom, as far as errors depend on it.

    Attributes:
        path: of the request, without the query.
        task: of the model.
        retry_after_sec: when the same request may succeed if the server says that it is loading or busy.
    """

    path: str
    task: Task
    retry_after_sec: int


@dataclass(frozen=True, kw_only=True)
class _Said:
    """An error as llama-server has it; what is not there or of another type is None."""

    message: str
    status: int | None = None
    type: str | None = None
    code: str | None = None
    tokens: int | None = None
    limit: int | None = None


def translate(status: int, body: bytes, *, asked: Asked) -> ApiError:
    """A whole answer that is an error.

    Args:
        status: that it came with.
        body: at least its first `LONGEST_ANSWER_BYTES`; longer JSON cannot be read and passes as text.
    """
    body = body[:LONGEST_ANSWER_BYTES]
    document = _json(body)
    if isinstance(document, Mapping):
        document = document.get("error", document)
    said = _said(document, raw=body)
    return _error(said, status=_error_status(status) or said.status or 502, asked=asked)


def translate_event(event: bytes, *, asked: Asked) -> ApiError | None:
    """An error in a stream; None where the event is none.

    There are three forms: `data: {"error": {…}}` since b6957 (tools/server/server.cpp:5090), `error: {…}` before it
    (b4291 examples/server/server.cpp:3439), and `event: error` with `data: {…}` at /v1/messages (b11434
    tools/server/server-context.cpp:4768). Builds of the first two forms may send `[DONE]` after it.

    Args:
        event: the lines of one event, with or without the empty line that ends it.
    """
    if b"error" not in event or len(event) > LONGEST_ANSWER_BYTES:
        return None
    named, data = _fields(event)
    document = _json(data)
    if isinstance(document, Mapping) and document.get("error"):
        document = document["error"]
    elif not named:
        return None
    said = _said(document, raw=data)
    return _error(said, status=said.status or 500, asked=asked)


def _fields(event: bytes) -> tuple[bool, bytes]:
    """Whether the event says that it is an error, and its data."""
    named, parts = False, []
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            named = value == b"error"
        elif field in (b"data", b"error"):
            named = named or field == b"error"
            parts.append(value)
    return named, b"\n".join(parts)


def _said(error: object, *, raw: bytes) -> _Said:
    """What is known of an error.

    Args:
        error: the value that should be one, as JSON has it.
        raw: what it was read from, for where it is something else.
    """
    fields = error if isinstance(error, Mapping) else {"message": error}
    message, kind, code = fields.get("message"), fields.get("type"), fields.get("code")
    return _Said(
        message=bounded(message if isinstance(message, str) else raw.decode(errors="replace").strip()),
        status=_error_status(code),
        type=_word(kind),
        code=_word(code),
        tokens=_count(fields.get("n_prompt_tokens")),
        limit=_count(fields.get("n_ctx")),
    )


def _error(said: _Said, *, status: int, asked: Asked) -> ApiError:
    found = known_text(said.message)
    if found is None:
        return _unknown(said, status=status)
    known, match = found
    if known.task:
        return replace(wrong_task(task=asked.task, path=asked.path), llama_cpp=said.message)
    groups = match.groupdict()
    tokens = int(groups.get("tokens") or 0) or said.tokens
    limit = int(groups.get("limit") or 0) or said.limit
    counted = tokens and (limit or groups.get("batch"))
    message = (known.counted if known.counted and counted else known.message).format_map(
        groups | {"tokens": tokens, "limit": limit, "retry_after_sec": asked.retry_after_sec}
    )
    param = _INPUTS.get(asked.path) if known.param == INPUT else known.param
    return ApiError(
        status=known.status,
        message=bounded(message) or said.message,
        type=known.type,
        code=known.code,
        param=groups.get("param") or param,
        retry_after_sec=asked.retry_after_sec if known.retry else None,
        llama_cpp=said.message if message else None,
        prompt_tokens=tokens,
        context_size=limit,
    )


def _unknown(said: _Said, *, status: int) -> ApiError:
    return ApiError(
        status=status,
        message=said.message or f"The model's server answered {status} without a text.",
        type=said.type or (INVALID_REQUEST if status < 500 else SERVER_ERROR),
        code=said.code,
        prompt_tokens=said.tokens,
        context_size=said.limit,
    )


def _json(data: bytes) -> object:
    """None where it is no JSON: not valid, not UTF-8, nested too deep."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _error_status(value: object) -> int | None:
    return value if type(value) is int and 400 <= value < 600 else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 < value < _MOST_TOKENS else None
