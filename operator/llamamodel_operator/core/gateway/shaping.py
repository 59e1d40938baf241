"""What is looked at and changed in a request, besides its name: what cannot work is refused before a server sees it,
and what the LlamaModel says and its servers do not know is put in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llamamodel_operator.core.gateway.errors import ApiError, invalid_grammar, invalid_json_schema, tools_with_grammar
from llamamodel_operator.core.gateway.routes import ServedModel, Target
from llamamodel_operator.core.text.grammar import refused_grammar
from llamamodel_operator.core.text.json_schema import number_of_values, refused_by_server

__all__ = ["LONGEST_GRAMMAR", "MOST_SCHEMA_VALUES", "refusal_of", "shaped"]

LONGEST_GRAMMAR = 2_048
"""Characters of a grammar that is checked: 1 µs to 2 µs each, in which nothing else is served."""
_MOST_ELEMENTS = 1_000
"""Of a grammar with its repetitions written out, likewise."""
MOST_SCHEMA_VALUES = 500
"""Values of a JSON schema that is checked, and of those of all tools together: 2 µs to 5 µs each, likewise."""

_STOP: Mapping[str, str] = {
    "/v1/chat/completions": "stop",
    "/v1/completions": "stop",
    "/v1/responses": "stop",  # OpenAI has none there; llama-server takes it
    "/v1/messages": "stop_sequences",
    "/infill": "stop",
}
"""Paths whose answers end at texts, with the field that names them."""
_OWN_LIMIT = "/v1/messages"
"""Where llama-server has a limit of its own, of some thousand tokens, in place of that of its command line (b11669)."""
_SYSTEM: Mapping[str, str] = {
    "/v1/messages": "system",
    "/v1/messages/count_tokens": "system",
    "/v1/responses": "instructions",
}
"""Paths that have a field for the system prompt."""
_SYSTEM_ROLES = ("system", "developer")


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
    left = MOST_SCHEMA_VALUES
    for index, schema in enumerate(_schemas_of_tools(request)):
        left -= number_of_values(schema, most=left)
        if left < 0:
            break
        if wrong := refused_by_server(schema, most_values=MOST_SCHEMA_VALUES):
            return invalid_json_schema(f"of tool {index + 1}, {wrong}", param="tools")
    return None


def _schemas(request: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Each with the field that has it: llama-server's own, and OpenAI's (common/chat.cpp, tools/server)."""
    yield "json_schema", request.get("json_schema")
    match request.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            yield "response_format", schema
        case {"type": "json_object", "schema": schema}:
            yield "response_format", schema


def _schemas_of_tools(request: Mapping[str, Any]) -> Iterator[object]:
    """Of their parameters, in the forms of chat completions, responses and Anthropic's messages. llama-server makes one
    grammar of all of them."""
    tools = request.get("tools")
    if not isinstance(tools, list) or request.get("tool_choice") == "none":
        return
    for tool in tools:
        match tool:
            case {"function": {"parameters": schema}} | {"parameters": schema} | {"input_schema": schema}:
                yield schema
            case _:
                yield None


def shaped(request: Mapping[str, Any], *, path: str, target: Target) -> Mapping[str, Any]:
    """The request as it is sent on: itself, the very object, where nothing is to be changed.

    Args:
        path: that it is for.
        target: the model and the LoRA adapter that was asked for.
    """
    model = target.model
    more: dict[str, Any] = {}
    if target.adapter is not None:  # at its full strength; those that are not named have none
        more["lora"] = [{"id": index, "scale": float(index == target.adapter)} for index in range(len(model.adapters))]
    if model.stop and (stop := _STOP.get(path)) and request.get(stop) is None:
        more[stop] = list(model.stop)
    if model.max_tokens is not None and path == _OWN_LIMIT and request.get("max_tokens") is None:
        more["max_tokens"] = model.max_tokens
    if model.system_prompt:
        more |= _with_system_prompt(request, path=path, prompt=model.system_prompt)
    return {**request, **more} if more else request


def _with_system_prompt(request: Mapping[str, Any], *, path: str, prompt: str) -> Mapping[str, Any]:
    """What puts it in; nothing where the request has one, or is no conversation."""
    if path == "/v1/chat/completions":
        messages = request.get("messages")
        if not isinstance(messages, list) or _has_system_message(messages):
            return {}
        return {"messages": [{"role": "system", "content": prompt}, *messages]}
    field = _SYSTEM.get(path)
    if field is None or request.get(field) is not None or _has_system_message(request.get("input")):
        return {}
    return {field: prompt}


def _has_system_message(messages: object) -> bool:
    return isinstance(messages, list) and any(
        isinstance(message, Mapping) and message.get("role") in _SYSTEM_ROLES for message in messages
    )
