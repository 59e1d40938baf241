"""The page about the gateway's errors: the table of what llama-server says, and those that the gateway makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway import errors
from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.core.gateway.known_texts import KNOWN_TEXTS, KnownText, Moment
from referencegen.errors import IncompleteSourceError
from referencegen.markdown import code, page, paragraph, prose, table

__all__ = ["gateway_page"]


@dataclass(frozen=True, kw_only=True)
class _Own:
    """An error that the gateway makes: an example, what it is about, which tests make it happen, and when a client can
    read it."""

    error: ApiError
    about: str
    tests: tuple[str, ...]
    moments: tuple[Moment, ...] = (Moment.BEFORE,)


_TESTS = Path(__file__).resolve().parents[3] / "tests"
_BOTH = (Moment.BEFORE, Moment.WITHIN)
_OWN: Mapping[str, _Own] = {
    "model_not_found": _Own(
        error=errors.model_not_found("qwen3-8", names=["qwen3-8b"]),
        about="no model has that name, or the key may not use it; what is served under a name and has it not is named",
        tests=("api/test_gateway_names", "e2e/test_gateway_clients", "e2e/test_gateway_keys"),
    ),
    "model_loading": _Own(
        error=errors.model_loading("qwen3-8b", retry_after_sec=40),
        about="no pod has the model in memory yet",
        tests=("unit/test_gateway_waits", "e2e/test_gateway_faults"),
    ),
    "model_unavailable": _Own(
        error=errors.model_unavailable("qwen3-8b", reason=Reason.SUSPENDED, message="spec.suspend is true"),
        about="suspended, failed, blocked: the reason is that of the LlamaModel",
        tests=("unit/test_gateway_waits", "e2e/test_gateway_clients"),
    ),
    "wrong_task": _Own(
        error=errors.wrong_task(task=Task.EMBED, path="/v1/chat/completions"),
        about="the path is for another task; llama-server itself would answer 200",
        tests=("unit/test_gateway", "e2e/test_gateway_clients"),
    ),
    "tools_with_grammar": _Own(
        error=errors.tools_with_grammar(),
        about="tools, where the LlamaModel has a grammar; llama-server itself would answer 200",
        tests=("unit/test_gateway_shaping",),
    ),
    "invalid_grammar": _Own(
        error=errors.invalid_grammar("line 1, column 13: found {3,2}, expected the larger number last: swap them"),
        about="a grammar of up to 2,048 characters that llama-server would refuse, or not get to an end with",
        tests=("unit/test_gateway_shaping",),
    ),
    "invalid_json_schema": _Own(
        error=errors.invalid_json_schema(
            "at #: found minLength 3 above maxLength 2: no answer could keep to both", param="response_format"
        ),
        about="the same of a JSON schema of up to 500 values",
        tests=("unit/test_gateway_shaping",),
    ),
    "body_too_large": _Own(
        error=errors.body_too_large(limit_bytes=1048576),
        about="more than the gateway takes",
        tests=("unit/test_gateway", "e2e/test_gateway_clients"),
    ),
    "headers_too_large": _Own(
        error=errors.headers_too_large(limit_bytes=8190),
        about="a path or a header is longer than the gateway takes",
        tests=("unit/test_gateway_connections",),
    ),
    "malformed_http": _Own(
        error=errors.malformed_http("Duplicate 'Content-Length' header found."),
        about="what came is no HTTP",
        tests=("unit/test_gateway_connections",),
    ),
    "invalid_api_key": _Own(
        error=errors.invalid_api_key(),
        about="no key, or none that is known",
        tests=("unit/test_gateway_access", "e2e/test_gateway_keys"),
    ),
    "rate_limited": _Own(
        error=errors.rate_limited("8 requests wait for this model", retry_after_sec=2),
        about="more than the key may send, than a pod or the gateway takes, or than may wait for a model",
        tests=("unit/test_gateway_access", "e2e/test_gateway_keys"),
    ),
    "timed_out": _Own(
        error=errors.timed_out(timeout_sec=600),
        about="the server did not answer in time",
        moments=_BOTH,
        tests=("unit/test_gateway",),
    ),
    "gateway_stopping": _Own(
        error=errors.gateway_stopping(),
        about="the gateway's pod ended before the answer did",
        moments=_BOTH,
        tests=("unit/test_gateway_process",),
    ),
    "upstream_died": _Own(
        error=errors.upstream_died(),
        about="the server ended before its answer was complete",
        moments=_BOTH,
        tests=("unit/test_gateway", "e2e/test_gateway_faults"),
    ),
}


def gateway_page() -> str:
    """Each row of the table, and each error of the gateway."""
    made = {name for name in errors.__all__ if _makes_error(name)}
    if made != set(_OWN):
        raise IncompleteSourceError(f"{', '.join(made ^ set(_OWN))}: core/gateway/errors.py and _OWN differ")
    for own in _OWN.values():
        for test in own.tests:
            if f'"{own.error.code}"' not in (_TESTS / f"{test}.py").read_text():
                raise IncompleteSourceError(f"tests/{test}.py does not speak of {own.error.code}")
    return page(
        "Errors of the gateway",
        [
            paragraph(
                "llama-server has errors of its own: `code` is a number, `param` is missing, a full context is a 500 or"
                " a 400, before the stream or in it. The gateway turns them into those of OpenAI, so that the official"
                " clients raise what they raise there, with a `code` that programs can rely on."
            ),
            '```json\n{"error": {"message": "This model\'s maximum context length is 512 tokens. However, …",\n'
            '           "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",\n'
            '           "n_prompt_tokens": 3024, "n_ctx": 512, "llama_cpp": "request (3024 tokens) exceeds …"}}\n```',
            paragraph(
                "`llama_cpp` has the original text where the message is another. Where the same request may succeed"
                " later, `retry_after` (seconds) is in the body and `Retry-After` in the header. In a stream that has"
                " begun the error is its last event, `data: {…}`, named `error` at `/v1/messages`; the status is then"
                " 200 and cannot be another any more."
            ),
            "## What llama-server says",
            paragraph(
                "The sources are builds of llama.cpp, files and lines, with the status where it differs. *Provoked*"
                " means that a server of that build was made to say it: `tests/server/test_server_errors.py` does it"
                " again with b11669. *Recorded* texts are known from sources or reports. All bodies of both kinds go"
                " through `tests/unit/test_gateway_errors.py`, and through a gateway to OpenAI's clients in"
                " `tests/server/test_gateway_clients.py`."
            ),
            table(
                ("llama.cpp says", "status", "type", "code", "how it is known", "when", "source", "tests"),
                [_row(known) for known in KNOWN_TEXTS],
            ),
            paragraph(
                "What is not in the table passes with its own text as the message, with llama.cpp's status and type; a"
                " `code` that is no text is `null`."
            ),
            "## What the gateway says",
            table(
                ("about", "status", "type", "code", "message, for example", "when", "tests"),
                [
                    (
                        prose(own.about),
                        str(own.error.status),
                        code(own.error.type),
                        code(own.error.code or "null"),
                        prose(own.error.message),
                        _when(own.moments),
                        "<br>".join(code(test) for test in own.tests),
                    )
                    for own in _OWN.values()
                ],
            ),
        ],
    )


def _makes_error(name: str) -> bool:
    return getattr(getattr(errors, name), "__annotations__", {}).get("return") == "ApiError"


def _row(known: KnownText) -> tuple[str, ...]:
    provoked = f"provoked: {', '.join(f'b{build}' for build in known.provoked)}"
    return (
        code(known.example.replace("\n", " ").strip()),
        str(known.status),
        code(known.type),
        code(known.code or "null"),
        provoked if known.provoked else "recorded",
        _when(known.moments) + (f"; up to b{known.streamed_until} in it" if known.streamed_until else ""),
        "<br>".join(known.sources),
        "server, unit, clients" if 11669 in known.provoked else "unit, clients",
    )


def _when(moments: tuple[Moment, ...]) -> str:
    return ", ".join(moments)
