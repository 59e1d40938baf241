"""Errors in OpenAI's shape, and those that the gateway itself makes.

Types, codes and texts are OpenAI's where OpenAI has such an error (`context_length_exceeded`, `model_not_found`,
`invalid_api_key`, `rate_limit_exceeded`), so that what clients do about them works here as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.spec import Task

__all__ = [
    "INVALID_REQUEST",
    "SERVER_ERROR",
    "UNAVAILABLE",
    "ApiError",
    "body_too_large",
    "bounded",
    "gateway_stopping",
    "headers_too_large",
    "invalid_api_key",
    "invalid_grammar",
    "invalid_json_schema",
    "malformed_http",
    "model_loading",
    "model_not_found",
    "model_unavailable",
    "rate_limited",
    "timed_out",
    "tools_with_grammar",
    "upstream_died",
    "wrong_task",
]

INVALID_REQUEST = "invalid_request_error"
UNAVAILABLE = "service_unavailable"
SERVER_ERROR = "server_error"

_OF_ANTHROPIC = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
"""Paths whose clients look for `"type": "error"` besides the error (docs.claude.com, API errors)."""
_LONGEST_TEXT = 1000
"""Characters of a text that an error keeps: servers repeat whole prompts and lists of tools."""
_LONGEST_NAME = 128
"""Characters of a model's name or a path that are looked at and repeated."""
_MOST_NAMES = 2000
"""Names that a misspelt one is compared with."""
_MOST_SHOWN = 5
"""Full names that one bare name is answered with."""
_ENDPOINTS: Mapping[Task, str] = {
    Task.GENERATE: "/v1/chat/completions",
    Task.EMBED: "/v1/embeddings",
    Task.RERANK: "/v1/rerank",
}


@dataclass(frozen=True, kw_only=True)
class ApiError:
    """An error as the official clients of OpenAI read it.

    Texts may repeat what the client sent: they are for the client, not for logs; `code` is for logs.

    Attributes:
        status: of the HTTP answer; an error within a stream cannot send it any more.
        type: class of the error, such as `invalid_request_error`.
        code: what programs may rely on; None where nothing is known.
        param: the field of the request that is to blame.
        retry_after_sec: when the same request may succeed.
        llama_cpp: what llama-server said, where `message` says something else.
        prompt_tokens: what the request takes, where the server counted it.
        context_size: tokens that it may take, likewise.
    """

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after_sec: int | None = None
    llama_cpp: str | None = None
    prompt_tokens: int | None = None
    context_size: int | None = None

    def body(self, *, path: str = "") -> dict[str, Any]:
        """The JSON object of the answer. All is within `error`, as that is what clients hand on with an exception; the
        counts have llama.cpp's names for them.

        Args:
            path: of the request: Anthropic's clients are told at the top as well that it is an error.
        """
        error: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        more = {
            "retry_after": self.retry_after_sec,
            "n_prompt_tokens": self.prompt_tokens,
            "n_ctx": self.context_size,
            "llama_cpp": self.llama_cpp,
        }
        top = {"type": "error"} if path in _OF_ANTHROPIC else {}
        return {**top, "error": error | {name: value for name, value in more.items() if value is not None}}

    def headers(self) -> dict[str, str]:
        """Those that belong to the error, without the content type."""
        return {} if self.retry_after_sec is None else {"Retry-After": str(self.retry_after_sec)}

    def event(self, *, path: str) -> bytes:
        """As an event of a stream that has begun. OpenAI's clients look for `error` in any event, Anthropic's for one
        that is named so."""
        name = b"event: error\n" if path == "/v1/messages" else b""
        return name + b"data: " + orjson.dumps(self.body(path=path)) + b"\n\n"


def bounded(text: str, *, longest: int = _LONGEST_TEXT) -> str:
    """A text, cut where it is longer than an error may keep (characters)."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def model_not_found(name: str, *, names: Collection[str], full_names: Sequence[str] = ()) -> ApiError:
    """No model is called so.

    Args:
        names: of the models that this client may know of.
        full_names: of those among them that are served under this name, and have it not as a bare one.
    """
    asked = bounded(name, longest=_LONGEST_NAME)
    if full_names:
        hint = f" What is served as `{asked}` answers to its full name alone: {_either(full_names[:_MOST_SHOWN])}."
    else:
        near = difflib.get_close_matches(asked, list(islice(names, _MOST_NAMES)), n=3)
        hint = f" Did you mean {_either(near)}?" if near else ""
    return ApiError(
        status=404,
        message=f"The model `{asked}` does not exist or you do not have access to it.{hint}",
        type=INVALID_REQUEST,
        code="model_not_found",
        param="model",
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)


def model_loading(name: str, *, retry_after_sec: int) -> ApiError:
    """Its servers have started, none has the model in memory yet.

    Args:
        retry_after_sec: what is left of the time that the model may take to start.
    """
    return ApiError(
        status=503,
        message=f"The model `{name}` is loading. Try again in {retry_after_sec} s.",
        type=UNAVAILABLE,
        code="model_loading",
        retry_after_sec=retry_after_sec,
    )


def model_unavailable(name: str, *, reason: Reason, message: str) -> ApiError:
    """Suspended, failed, blocked: nothing serves it, and waiting does not help.

    Args:
        reason: of the LlamaModel's condition Ready.
        message: of the same condition.
    """
    return ApiError(
        status=503,
        message=bounded(f"The model `{name}` is not served ({reason}): {message}"),
        type=UNAVAILABLE,
        code="model_unavailable",
    )


def wrong_task(*, task: Task, path: str) -> ApiError:
    """The model does not do what the path asks for.

    Args:
        task: what it does.
        path: of the request.
    """
    return ApiError(
        status=400,
        message=f"This model does not answer {bounded(path, longest=_LONGEST_NAME)}: it is served to {task}."
        f" Use {_ENDPOINTS[task]}.",
        type=INVALID_REQUEST,
        code="unsupported_endpoint",
    )


def tools_with_grammar() -> ApiError:
    """The request has tools, and the model's server holds every answer to one grammar: llama-server would answer 200
    with what the grammar allows, which is no call."""
    return ApiError(
        status=400,
        message="This model answers by a grammar of its own (spec.grammar) and can call no tools. Leave out `tools`.",
        type=INVALID_REQUEST,
        code="tools_with_grammar",
        param="tools",
    )


def invalid_grammar(problem: str) -> ApiError:
    """The grammar of the request is none that llama-server takes, or gets to an end with.

    Args:
        problem: with the place in the grammar.
    """
    return ApiError(
        status=400,
        message=bounded(f"The grammar cannot be used: {problem}"),
        type=INVALID_REQUEST,
        code="invalid_grammar",
        param="grammar",
    )


def invalid_json_schema(problem: str, *, param: str) -> ApiError:
    """The same of a JSON schema.

    Args:
        problem: with the place in the schema.
        param: the field of the request that has it.
    """
    return ApiError(
        status=400,
        message=bounded(f"The JSON schema cannot be used: {problem}"),
        type=INVALID_REQUEST,
        code="invalid_json_schema",
        param=param,
    )


def body_too_large(*, limit_bytes: int) -> ApiError:
    """The request is longer than the gateway takes."""
    return ApiError(
        status=413,
        message=f"The request is larger than {limit_bytes} bytes.",
        type=INVALID_REQUEST,
        code="request_too_large",
    )


def headers_too_large(*, limit_bytes: int) -> ApiError:
    """A line of the request's head is longer than the gateway takes."""
    return ApiError(
        status=431,
        message=f"The path or a header of the request is larger than {limit_bytes} bytes.",
        type=INVALID_REQUEST,
        code="headers_too_large",
    )


def malformed_http(what: str) -> ApiError:
    """What came is no HTTP.

    Args:
        what: is wrong with it; of several lines the first counts.
    """
    first = what.strip().partition("\n")[0].rstrip(":")
    return ApiError(
        status=400,
        message=bounded(f"The request cannot be read as HTTP: {first}"),
        type=INVALID_REQUEST,
        code="malformed_http",
    )


def invalid_api_key() -> ApiError:
    """No key, or one that is not known."""
    return ApiError(
        status=401,
        message="The API key is missing or not valid. Send it as `Authorization: Bearer KEY`.",
        type=INVALID_REQUEST,
        code="invalid_api_key",
    )


def rate_limited(what: str, *, retry_after_sec: int) -> ApiError:
    """More than the client may send, or more than may wait for a model.

    Args:
        what: the limit that was reached, as the end of a sentence.
    """
    return ApiError(
        status=429,
        message=f"Too many requests: {what}. Try again in {retry_after_sec} s.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_sec=retry_after_sec,
    )


def timed_out(*, timeout_sec: int) -> ApiError:
    """The model's server did not answer in time."""
    return ApiError(
        status=504,
        message=f"The model did not answer within {timeout_sec} s.",
        type=SERVER_ERROR,
        code="timeout",
    )


def gateway_stopping() -> ApiError:
    """The gateway is to stop, and has waited for the end of the answer for as long as it may."""
    return ApiError(
        status=503,
        message="The gateway stops and could not wait for the end of this answer. Send the request again.",
        type=UNAVAILABLE,
        code="gateway_stopping",
        retry_after_sec=1,
    )


def upstream_died() -> ApiError:
    """The connection to the model's server ended before the answer did."""
    return ApiError(
        status=502,
        message="The model's server ended before its answer was complete. Send the request again.",
        type=SERVER_ERROR,
        code="upstream_died",
    )
