"""What is looked at in a request for generated text, besides its name: what cannot work is refused before a server sees
it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llamamodel_operator.core.gateway.errors import ApiError, invalid_grammar, invalid_json_schema, tools_with_grammar
from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.core.text.grammar import refused_grammar
from llamamodel_operator.core.text.json_schema import refused_by_server

__all__ = ["LONGEST_GRAMMAR", "MOST_SCHEMA_VALUES", "refusal_of"]

LONGEST_GRAMMAR = 2_048
"""Characters of a grammar that is checked: 1 µs to 2 µs each, in which nothing else is served."""
_MOST_ELEMENTS = 1_000
"""Of a grammar with its repetitions written out, likewise."""
MOST_SCHEMA_VALUES = 500
"""Values of a JSON schema that is checked: 2 µs to 5 µs each, likewise."""


def refusal_of(request: Mapping[str, Any], model: ServedModel) -> ApiError | None:
    """Why a request cannot work; None where nothing speaks against it.

    llama-server itself answers tools under a grammar of its own with text, and never gets to an end with some grammars
    and schemas, such as `"a"{3,2}`, which no answer keeps to: its other requests wait in vain. What is larger passes
    unchecked.
    """
    if model.grammar and (request.get("tools") or request.get("functions")) and request.get("tool_choice") != "none":
        return tools_with_grammar()
    grammar = request.get("grammar")
    checked = isinstance(grammar, str) and 0 < len(grammar) <= LONGEST_GRAMMAR
    if checked and (problem := refused_grammar(grammar, most_elements=_MOST_ELEMENTS)):
        return invalid_grammar(str(problem))
    for param, schema in _schemas(request):
        if wrong := refused_by_server(schema, most_values=MOST_SCHEMA_VALUES):
            return invalid_json_schema(str(wrong), param=param)
    return None


def _schemas(request: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Each with the field that has it: llama-server's own, and OpenAI's (common/chat.cpp, tools/server)."""
    yield "json_schema", request.get("json_schema")
    match request.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            yield "response_format", schema
        case {"type": "json_object", "schema": schema}:
            yield "response_format", schema
