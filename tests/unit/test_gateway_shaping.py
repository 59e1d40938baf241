"""What is refused of a request before a server sees it, and what is put into one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gateway.routes import ServedModel, Target, served_model
from llamamodel_operator.core.gateway.shaping import LONGEST_GRAMMAR, MOST_SCHEMA_VALUES, refusal_of, shaped
from llamamodel_operator.core.text.json_schema import refused_by_server

PLAIN = ServedModel(namespace="demo", name="m", served_name="m")
UNDER_GRAMMAR = ServedModel(namespace="demo", name="m", served_name="m", grammar=True)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
ENDLESS = {"type": "string", "minLength": 3, "maxLength": 2}
ENDLESS_SAID = "at #: found minLength 3 above maxLength 2: no answer could keep to both"


def code_of(request: dict[str, Any], model: ServedModel = PLAIN) -> str | None:
    error = refusal_of(request, model)
    return error.code if error else None


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ({"tools": TOOLS}, "tools_with_grammar"),
        ({"functions": [{"name": "f"}]}, "tools_with_grammar"),
        ({"tools": TOOLS, "tool_choice": "auto"}, "tools_with_grammar"),
        ({"tools": TOOLS, "tool_choice": "none"}, None),
        ({"tools": []}, None),
        ({}, None),
    ],
)
def test_tools_do_not_go_with_a_grammar_of_the_server(request_body: dict[str, Any], expected: str | None) -> None:
    assert code_of(request_body, UNDER_GRAMMAR) == expected
    assert code_of(request_body) is None


def test_whether_there_is_one_is_in_the_spec() -> None:
    metadata = {"namespace": "demo", "name": "m"}
    assert served_model({"metadata": metadata, "spec": {"grammar": {"builtin": "json"}}}).grammar
    assert not served_model({"metadata": metadata, "spec": {}}).grammar


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ('root ::= "a"{3,2}', "invalid_grammar"),
        ('root ::= root "a"', "invalid_grammar"),
        ("root ::= (", "invalid_grammar"),
        ('start ::= "a"', "invalid_grammar"),
        ('root ::= "a"{2,3}', None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_a_grammar_that_no_server_ends_with_is_refused(grammar: Any, expected: str | None) -> None:
    assert code_of({"grammar": grammar}) == expected


def test_a_refusal_says_where() -> None:
    error = refusal_of({"grammar": 'root ::= "a"{3,2}'}, PLAIN)
    assert error is not None
    assert (error.status, error.param) == (400, "grammar")
    assert error.message.startswith("The grammar cannot be used: line 1, column 13: found {3,2}")


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        ({"json_schema": ENDLESS}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": ENDLESS}}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": ENDLESS}}, "response_format"),
    ],
)
def test_a_schema_that_no_answer_keeps_to_is_refused_wherever_it_stands(
    request_body: dict[str, Any], param: str
) -> None:
    error = refusal_of(request_body, PLAIN)
    assert error is not None
    assert (error.status, error.code, error.param) == (400, "invalid_json_schema", param)
    assert error.message == f"The JSON schema cannot be used: {ENDLESS_SAID}"


@pytest.mark.parametrize(
    "request_body",
    [
        {"json_schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x", "not": {}}}}},
        {"json_schema": {"title": 5, "description": []}},
        {"json_schema": "text"},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": "json"},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_the_server_takes_passes(request_body: dict[str, Any]) -> None:
    assert code_of(request_body) is None


def tool(parameters: object, form: str = "chat") -> dict[str, Any]:
    match form:
        case "chat":
            return {"type": "function", "function": {"name": "f", "parameters": parameters}}
        case "responses":
            return {"type": "function", "name": "f", "parameters": parameters}
    return {"name": "f", "input_schema": parameters}


FINE = {"type": "object", "properties": {"a": {"type": "string"}}}
WITHOUT_END = {"type": "object", "properties": {"a": ENDLESS}}


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
def test_the_schemas_of_tools_are_checked_in_all_their_forms(form: str) -> None:
    error = refusal_of({"tools": [tool(FINE, form), tool(WITHOUT_END, form)]}, PLAIN)
    assert error is not None
    assert (error.status, error.code, error.param) == (400, "invalid_json_schema", "tools")
    said = ENDLESS_SAID.replace("at #:", "at #/properties/a:")
    assert error.message == f"The JSON schema cannot be used: of tool 2, {said}"
    assert refusal_of({"tools": [tool(FINE, form)] * 3}, PLAIN) is None


@pytest.mark.parametrize(
    "request_body",
    [
        {"tools": [tool(WITHOUT_END)], "tool_choice": "none"},
        {"tools": "text"},
        {"tools": ["text", 7, None, {}, {"function": "f"}, {"function": {"name": "f"}}, {"parameters": None}]},
        {"tools": {"function": {"parameters": ENDLESS}}},
    ],
)
def test_tools_without_a_schema_that_counts_pass(request_body: dict[str, Any]) -> None:
    assert code_of(request_body) is None


def test_the_schemas_of_all_tools_together_are_checked_up_to_a_number_of_values() -> None:
    large = tool({"enum": [*range(MOST_SCHEMA_VALUES - 50)]})
    assert code_of({"tools": [large, tool(WITHOUT_END)]}) == "invalid_json_schema"
    assert code_of({"tools": [large, large, tool(WITHOUT_END)]}) is None
    assert code_of({"tools": [tool({"enum": [*range(MOST_SCHEMA_VALUES)]}), tool(WITHOUT_END)]}) is None


def test_what_is_too_large_to_check_passes_to_the_server() -> None:
    comment = "#" * LONGEST_GRAMMAR
    assert code_of({"grammar": f'root ::= "a"{{3,2}}\n{comment}'}) is None
    assert code_of({"grammar": 'root ::= "a"{1000} "a"{3,2}'}) is None
    assert code_of({"json_schema": {**ENDLESS, "enum": [*range(MOST_SCHEMA_VALUES)]}}) is None
    many = {"type": ["string", "null"] * 20, "anyOf": [ENDLESS] * 20}
    assert refused_by_server(many, most_values=200) is not None
    assert refused_by_server({"oneOf": [{"type": "string"}] * 50}, most_values=40) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                (
                    *(
                        "type",
                        "properties",
                        "items",
                        "prefixItems",
                        "anyOf",
                        "allOf",
                        "$ref",
                        "enum",
                        "const",
                        "required",
                    ),
                    *("minLength", "maxLength", "minItems", "maxItems", "pattern", "format", "minimum", "maximum"),
                    *("additionalProperties", "x"),
                )
            ),
            inner | st.sampled_from(["object", "array", "string", "integer", "#", "#/properties/x", "#/items"]),
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_any_schema_is_refused_or_passes(schema: Any) -> None:
    refusal_of({"json_schema": schema, "response_format": {"type": "json_object", "schema": schema}}, PLAIN)


# --- what is put in

USER = {"role": "user", "content": "Hi"}
PROMPTED = ServedModel(namespace="demo", name="m", served_name="m", system_prompt="Be brief.")
STOPPING = ServedModel(namespace="demo", name="m", served_name="m", stop=("END", "###"))


def put_in(request: dict[str, Any], model: ServedModel, path: str, *, adapter: int | None = None) -> dict[str, Any]:
    """What is in the request that was not in it before."""
    sent = shaped(request, path=path, target=Target(model=model, adapter=adapter))
    return {name: value for name, value in sent.items() if name not in request or request[name] != value}


def test_a_request_is_the_very_same_where_there_is_nothing_to_put_in() -> None:
    request = {"messages": [USER]}
    assert shaped(request, path="/v1/chat/completions", target=Target(model=PLAIN)) is request
    assert shaped(request, path="/tokenize", target=Target(model=STOPPING)) is request
    assert shaped(request, path="/v1/embeddings", target=Target(model=PROMPTED)) is request


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "stop"),
        ("/v1/completions", "stop"),
        ("/v1/responses", "stop"),
        ("/infill", "stop"),
        ("/v1/messages", "stop_sequences"),
    ],
)
def test_stops_of_the_model_hold_where_the_request_names_none(path: str, field: str) -> None:
    assert put_in({}, STOPPING, path) == {field: ["END", "###"]}
    assert put_in({field: None}, STOPPING, path) == {field: ["END", "###"]}
    assert put_in({field: []}, STOPPING, path) == {}
    assert put_in({field: "x"}, STOPPING, path) == {}


def test_a_conversation_without_a_system_message_has_the_models() -> None:
    chat = "/v1/chat/completions"
    prompt = {"role": "system", "content": "Be brief."}
    assert put_in({"messages": [USER]}, PROMPTED, chat) == {"messages": [prompt, USER]}
    assert put_in({"messages": []}, PROMPTED, chat) == {"messages": [prompt]}
    for role in ("system", "developer"):
        assert put_in({"messages": [{"role": role, "content": ""}, USER]}, PROMPTED, chat) == {}
    assert put_in({"messages": "x"}, PROMPTED, chat) == {}
    assert put_in({"messages": [7]}, PROMPTED, chat) == {"messages": [prompt, 7]}


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/messages", "system"), ("/v1/messages/count_tokens", "system"), ("/v1/responses", "instructions")],
)
def test_other_paths_have_a_field_for_it(path: str, field: str) -> None:
    assert put_in({"input": "Hi"}, PROMPTED, path) == {field: "Be brief."}
    assert put_in({field: ""}, PROMPTED, path) == {}
    assert put_in({"input": [{"role": "developer", "content": "x"}]}, PROMPTED, path) == {}


def test_the_models_limit_holds_where_the_command_line_of_the_server_does_not() -> None:
    raw = {"metadata": {"namespace": "demo", "name": "m"}, "spec": {"requestDefaults": {"max_tokens": 7}}}
    model = served_model(raw)
    assert put_in({}, model, "/v1/messages") == {"max_tokens": 7}
    assert put_in({"max_tokens": 1}, model, "/v1/messages") == {}
    assert put_in({}, model, "/v1/chat/completions") == {}
    assert put_in({}, PLAIN, "/v1/messages") == {}


def test_a_plain_prompt_is_no_conversation() -> None:
    assert put_in({"prompt": "Hi"}, PROMPTED, "/v1/completions") == {}


def test_all_is_put_in_at_once() -> None:
    model = ServedModel(namespace="d", name="m", served_name="m", system_prompt="p", stop=("x",), adapters=("a", "b"))
    found = put_in({"messages": []}, model, "/v1/chat/completions", adapter=1)
    assert found.keys() == {"messages", "stop", "lora"}
    assert found["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]


def test_only_what_the_servers_do_not_do_themselves_is_put_in() -> None:
    spec = {"systemPrompt": {"inline": "Be brief."}, "requestDefaults": {"stop": ["END"], "temperature": 0.2}}
    raw: dict[str, Any] = {"metadata": {"namespace": "demo", "name": "m"}, "spec": spec}
    model = served_model(raw)
    assert (model.system_prompt, model.stop) == ("", ("END",)), "the chat template has the prompt"
    unused = {**raw, "status": {"findings": [{"code": "SystemPromptUnused", "field": "spec.systemPrompt"}]}}
    assert served_model(unused).system_prompt == "Be brief."
    elsewhere = {**unused, "spec": {"systemPrompt": {"configMapKeyRef": {"name": "c", "key": "k"}}}}
    assert served_model(elsewhere).system_prompt == ""


@given(JSON, st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/responses"]))
def test_any_request_can_be_shaped(value: Any, path: str) -> None:
    model = ServedModel(namespace="demo", name="m", served_name="m", system_prompt="p", stop=("x",))
    shaped({"messages": value, "input": value}, path=path, target=Target(model=model))
