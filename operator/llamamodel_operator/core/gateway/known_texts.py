"""What llama-server says when it refuses or fails, and what that is to a client of OpenAI: one table.

A pattern is matched at the beginning of the message, so that text which a user sent and the server repeats is not taken
for one. `sources` are builds of llama.cpp with the file and line that make the text: the oldest and newest that were
read, and those in between where it became another. `provoked` are the builds that were made to say it
(tests/server/test_server_errors.py does it again for b11669); others are known from sources and reports alone, see
tests/unit/llama_server_errors.json.

Up to b6957 the errors of a request with `stream: true` that were found when its turn came were sent in the stream,
after a status of 200 and before `[DONE]`; since b7631 what is wrong from the start is a whole answer (tools/server/
server-context.cpp:2979), and an error is the last event.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from llamamodel_operator.core.gateway.errors import INVALID_REQUEST, SERVER_ERROR, UNAVAILABLE

__all__ = ["INPUT", "KNOWN_TEXTS", "KnownText", "Moment", "known_text"]

INPUT = "<input>"
"""As `param`: the field that has the text, which differs by path."""


class Moment(StrEnum):
    """When a client can read it."""

    BEFORE = "before the stream"
    WITHIN = "in the stream"


@dataclass(frozen=True, kw_only=True)
class KnownText:
    """An error of llama-server.

    Attributes:
        pattern: regular expression; may have the groups `tokens`, `limit` and `batch` (numbers), `param` and `detail`.
        message: what the client reads, with `{detail}`, `{retry_after_sec}`; empty where llama.cpp's own text says it.
        counted: the same where the server counted: `{tokens}`, and `{limit}` or `{batch}`; empty: `message` is all.
        param: the field of the request that is to blame; `INPUT`, or a group of the pattern with that name, says more.
        retry: whether the same request may succeed a little later.
        task: the endpoint does not go with the model's task: the message is `wrong_task`'s.
        moments: when today's builds say it.
        streamed_until: the last of the builds that were read which said it in the stream too.
        sources: build, file, line.
        example: a whole message.
    """

    pattern: str
    status: int = 400
    type: str = INVALID_REQUEST
    code: str | None = None
    message: str = ""
    counted: str = ""
    param: str | None = None
    retry: bool = False
    task: bool = False
    sources: tuple[str, ...]
    example: str
    provoked: tuple[int, ...] = ()
    moments: tuple[Moment, ...] = (Moment.BEFORE,)
    streamed_until: int | None = None


_RUN = (10068, 11669)
_BOTH = (Moment.BEFORE, Moment.WITHIN)
_COUNTED = (
    "This model's maximum context length is {limit} tokens. However, your request has {tokens} tokens."
    " Please reduce its length."
)
_FULL = "Your request does not fit into this model's context. Please reduce its length."
_SCHEMA = "The JSON schema cannot be used: {detail}"
_NO_MEDIA = "This model takes text alone: it is served without a projector (spec.projector)."

KNOWN_TEXTS: Sequence[KnownText] = (
    KnownText(
        pattern=r"Loading model$",
        status=503,
        type=UNAVAILABLE,
        code="model_loading",
        message="The model is loading. Try again in {retry_after_sec} s.",
        retry=True,
        sources=("b4291 examples/server/server.cpp:3046", "b11434 tools/server/server-http.cpp:318"),
        example="Loading model",
        provoked=(10068, 10092, 10434, 11669),
    ),
    KnownText(
        pattern=r"no slot available$",
        status=503,
        type=UNAVAILABLE,
        code="slot_unavailable",
        message="All slots of the model are busy. Try again in {retry_after_sec} s.",
        retry=True,
        sources=("b4291 examples/server/server.cpp:3111", "b11434 tools/server/server-context.cpp:5118"),
        example="no slot available",
        provoked=_RUN,
    ),
    # context
    KnownText(
        pattern=r"(?:the )?request(?: \((?P<tokens>\d{1,12}) tokens\))? exceeds the available context size"
        r"(?: \((?P<limit>\d{1,12}) tokens\))?",
        code="context_length_exceeded",
        message=_FULL,
        counted=_COUNTED,
        param=INPUT,
        sources=(
            "b4291 examples/server/server.cpp:2489",
            "b6957 tools/server/server.cpp:5020",
            "b7631 tools/server/server-context.cpp:2131",
            "b11434 tools/server/server-context.cpp:3420",
        ),
        example="request (3024 tokens) exceeds the available context size (512 tokens), try increasing it",
        provoked=_RUN,
        streamed_until=6957,
    ),
    KnownText(
        pattern=r"input(?: \((?P<tokens>\d{1,12}) tokens\))? is larger than the max context size"
        r"(?: \((?P<limit>\d{1,12}) tokens\))?",
        code="context_length_exceeded",
        message=_FULL,
        counted=_COUNTED,
        param=INPUT,
        sources=(
            "b4291 examples/server/server.cpp:2479",
            "b7631 tools/server/server-context.cpp:2122",
            "b11434 tools/server/server-context.cpp:3411",
        ),
        example="input (302 tokens) is larger than the max context size (256 tokens). skipping",
        provoked=(11669,),
    ),
    KnownText(
        pattern=r"Context size has been exceeded",
        code="context_length_exceeded",
        message="The context of this model is full, possibly with other requests that share it. Please reduce the"
        " length of the request or of the answer, or send it again later.",
        param=INPUT,
        sources=(
            "b5481 tools/server/server.cpp:3411",
            "b11434 tools/server/server-context.cpp:4023",
            "github.com/ggml-org/llama.cpp/issues/19774",
        ),
        example="Context size has been exceeded.",
        provoked=_RUN,
        moments=_BOTH,
    ),
    KnownText(
        pattern=r"context shift cannot be used for shared prompt",
        code="context_length_exceeded",
        message="The answers do not fit into this model's context together. Ask for fewer of them (`n`), or for"
        " shorter ones.",
        param="n",
        sources=("b10068 tools/server/server-context.cpp:2857", "b11434 tools/server/server-context.cpp:3132"),
        example="context shift cannot be used for shared prompt",
        provoked=(11669,),
        moments=_BOTH,
    ),
    KnownText(
        pattern=r"context shift is disabled",
        code="context_length_exceeded",
        message=_FULL,
        param=INPUT,
        sources=("b4291 examples/server/server.cpp:2368", "b11434 tools/server/server-context.cpp:3120"),
        example="context shift is disabled",
        moments=_BOTH,
    ),
    KnownText(
        pattern=r"Input prompt is too big compared to KV size",
        code="context_length_exceeded",
        message=_FULL,
        param=INPUT,
        sources=("b4291 examples/server/server.cpp:2690",),
        example="Input prompt is too big compared to KV size. Please try increasing KV size.",
        moments=_BOTH,
    ),
    KnownText(
        pattern=r"input(?: \((?P<tokens>\d{1,12}) tokens\))? is too large to process\. increase the physical batch size"
        r"(?: \(current batch size: (?P<batch>\d{1,12})\))?",
        code="input_too_large",
        message="The input is longer than this model takes at once (spec.engine.microBatchSize). Please reduce its"
        " length.",
        counted="This model takes at most {batch} tokens at once (spec.engine.microBatchSize). However, your input has"
        " {tokens} tokens. Please reduce its length.",
        param=INPUT,
        sources=(
            "b4291 examples/server/server.cpp:2473",
            "b7631 tools/server/server-context.cpp:2110",
            "b11434 tools/server/server-context.cpp:3399",
        ),
        example="input (302 tokens) is too large to process. increase the physical batch size (current batch size: 64)",
        provoked=_RUN,
    ),
    # grammars and schemas
    KnownText(
        pattern=r"(?:Failed to initialize samplers: )?[Ff]ailed to parse grammar",
        code="invalid_grammar",
        message="The grammar cannot be parsed; only the log of the model's server says where.",
        param="grammar",
        sources=(
            "b4291 examples/server/server.cpp:1688",
            "b9093 tools/server/server-context.cpp:1315",
            "b11434 tools/server/server-context.cpp:1918, common/sampling.cpp:279",
        ),
        example="Failed to initialize samplers: failed to parse grammar",
        provoked=_RUN,
        streamed_until=6957,
    ),
    KnownText(
        pattern=r"Unable to generate parser for this template\. Automatic parser generation failed: "
        r"(?P<detail>JSON schema (?:conversion failed|error)[\s\S]*)",
        code="invalid_json_schema",
        message=_SCHEMA,
        param="response_format",
        sources=("b10068 common/chat.cpp:2782", "b11434 common/chat.cpp:1370"),
        example="Unable to generate parser for this template. Automatic parser generation failed: JSON schema error at"
        " #: unrecognized type nonsense",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"(?:Field 'json_schema': )?\"json_schema\": (?P<detail>[\s\S]*)",
        code="invalid_json_schema",
        message=_SCHEMA,
        param="json_schema",
        sources=("b4291 examples/server/server.cpp:268", "b11434 tools/server/server-schema.cpp:269"),
        example="Field 'json_schema': \"json_schema\": JSON schema conversion failed:\nJSON schema error at #:"
        " unrecognized type nonsense",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"(?P<detail>JSON schema conversion failed[\s\S]*)",
        code="invalid_json_schema",
        message=_SCHEMA,
        param="response_format",
        sources=("b4291 common/json-schema-to-grammar.cpp:1022", "b11434 common/json-schema-to-grammar.cpp:977"),
        example='JSON schema conversion failed:\nUnrecognized schema: {"type":"nonsense"}',
    ),
    KnownText(
        pattern=r"Cannot use both json_schema and grammar|Either \"json_schema\" or \"grammar\" can be specified",
        code="invalid_grammar",
        param="grammar",
        sources=(
            "b4291 examples/server/server.cpp:261",
            "b5481 tools/server/utils.hpp:605",
            "b11434 tools/server/server-common.cpp:1296",
        ),
        example="Cannot use both json_schema and grammar",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Cannot use custom grammar constraints with tools|Cannot specify grammar with tools",
        code="tools_with_grammar",
        param="tools",
        sources=(
            "b5481 tools/server/utils.hpp:737",
            "b11434 tools/server/server-common.cpp:1391, common/chat.cpp:1312",
        ),
        example="Cannot use custom grammar constraints with tools.",
        provoked=_RUN,
    ),
    # the wrong endpoint
    KnownText(
        pattern=r"This server does not support (?:embeddings|reranking|completions)\.",
        code="unsupported_endpoint",
        task=True,
        sources=(
            "b4291 examples/server/server.cpp:3367, 3687",
            "b6332 tools/server/server.cpp:4692, 4802",
            "b11434 tools/server/server-context.cpp:5506, 5835",
        ),
        example="This server does not support embeddings. Start it with `--embeddings`",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Infill is not supported by this model|The current model does not support audio input",
        code="unsupported_endpoint",
        task=True,
        sources=(
            "b4291 examples/server/server.cpp:3480",
            "b10068 tools/server/server-context.cpp:4765",
            "b11434 tools/server/server-context.cpp:5198, 5369",
        ),
        example="Infill is not supported by this model: prefix token is missing. suffix token is missing. middle token"
        " is missing. ",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"File Not Found$",
        status=404,
        code="unknown_url",
        message="The model's server has no such path.",
        sources=("b4291 examples/server/server.cpp:2974", "b11434 tools/server/server-http.cpp:204"),
        example="File Not Found",
        provoked=_RUN,
    ),
    # what the request has in it
    KnownText(
        pattern=r"(?:image|audio|video) input is not supported - hint",
        code="unsupported_content",
        message=_NO_MEDIA,
        param=INPUT,
        sources=("b5481 tools/server/utils.hpp:656, 702", "b11434 tools/server/server-common.cpp:1197, 1210, 1225"),
        example="image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Multimodal data provided, but model does not support multimodal requests"
        r"|This server does not support multimodal$",
        code="unsupported_content",
        message=_NO_MEDIA,
        param=INPUT,
        sources=(
            "b5481 tools/server/server.cpp:4191",
            "b6332 tools/server/utils.hpp:1407",
            "b11434 tools/server/server-common.cpp:1038",
        ),
        example="Multimodal data provided, but model does not support multimodal requests.",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"\[json\.exception\.parse_error\.\d+\] (?P<detail>[\s\S]*)",
        code="invalid_json",
        message="The body of the request is not valid JSON: {detail}",
        sources=(
            "b4291 examples/server/server.cpp:2967 (500)",
            "b10068 tools/server/server.cpp:64 (500)",
            "b11434 tools/server/server.cpp:65 (400)",
        ),
        example="[json.exception.parse_error.101] parse error at line 1, column 15: syntax error while parsing value -"
        " unexpected end of input; expected '[', '{', or a literal",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"\[json\.exception\.out_of_range\.403\] key '(?P<param>\w{1,64})' not found",
        code="missing_required_parameter",
        message="Missing required parameter: '{param}'.",
        sources=("b4291 examples/server/server.cpp:2967 (500)", "b11434 tools/server/server-context.cpp:4628 (400)"),
        example="[json.exception.out_of_range.403] key 'prompt' not found",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"\[json\.exception\.type_error\.\d+\] ",
        code="invalid_value",
        sources=("b4291 examples/server/server.cpp:2967 (500)", "b11434 tools/server/server.cpp:65 (400)"),
        example="[json.exception.type_error.304] cannot use at() with array",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Field '(?P<param>\w{1,64})': ",
        code="invalid_value",
        sources=("b10068 tools/server/server-schema.cpp:567", "b11434 tools/server/server-schema.cpp:581"),
        example="Field 'temperature': [json.exception.type_error.302] type must be number, but is string",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"'(?P<param>messages|input)' is required$",
        code="missing_required_parameter",
        sources=("b5481 tools/server/utils.hpp:624 (500)", "b11434 tools/server/server-chat.cpp:378 (500)"),
        example="'messages' is required",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Failed to parse messages: ",
        code="invalid_value",
        param="messages",
        sources=("b5481 common/chat.cpp:240 (500)", "b11434 common/chat.cpp:468 (500)"),
        example='Failed to parse messages: Missing \'role\' in message: {"content":"x"}',
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Failed to parse tools: |tools param requires --jinja",
        code="invalid_value",
        param="tools",
        sources=(
            "b5481 common/chat.cpp:349, tools/server/utils.hpp:588 (500)",
            "b11434 common/chat.cpp:616, tools/server/server-common.cpp:1279 (500)",
        ),
        example="Failed to parse tools: Expected 'tools' to be an array, got 5; tools = 5",
        provoked=_RUN,
    ),
    KnownText(
        pattern=r"Failed to download image|Invalid base64 value|Unknown reasoning format|Only no echo is supported"
        r"|Unsupported param: |\"prompt\" must not be empty",
        code="invalid_value",
        sources=(
            "b5481 tools/server/utils.hpp:542, 549, 676 (500)",
            "b11434 tools/server/server-common.cpp:1067, 1093, 1100, 1143, 1185, common/chat.cpp:902 (500)",
        ),
        example="Unknown reasoning format: bogus",
        provoked=_RUN,
    ),
    # keys
    KnownText(
        pattern=r"Invalid API Key$",
        status=502,  # of 401 clients would think that their own key is wrong, which never goes to a server
        type=SERVER_ERROR,
        code="upstream_wants_key",
        message="The model's server wants an API key, which the gateway has not. Whoever runs the model can help.",
        sources=("b4291 examples/server/server.cpp:3031", "b11434 tools/server/server-http.cpp:294"),
        example="Invalid API Key",
        provoked=_RUN,
    ),
)
"""The first that matches counts."""

_PATTERNS = tuple((re.compile(known.pattern), known) for known in KNOWN_TEXTS)


def known_text(message: str) -> tuple[KnownText, re.Match[str]] | None:
    """The row of the table that a message of llama-server is, with what the pattern found; None where it is none."""
    for pattern, known in _PATTERNS:
        if found := pattern.match(message):
            return known, found
    return None
