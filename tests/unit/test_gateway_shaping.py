"""What is refused of a request for generated text, before a server sees it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from llamamodel_operator.core.gateway.shaping import LONGEST_GRAMMAR, MOST_SCHEMA_VALUES, refusal_of
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
