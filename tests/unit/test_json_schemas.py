"""JSON schemas: valid at all, and kept to by llama-server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.json_schema import MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES, check_json_schema

GOOD: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": ["string", "null"]},
    {"enum": ["a", 1, None]},
    {"const": {"a": 1}},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]},
    {"type": "object", "additionalProperties": {"type": "number"}},
    {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1, "maxItems": 5},
    {"type": "array", "items": [{"type": "string"}, {"type": "null"}]},
    {"type": "string", "pattern": "^[a-z]{1,8}$"},
    {"type": "string", "format": "date-time"},
    {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "number"}}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A", "description": "b", "type": "boolean"},
]

ERRORS: list[tuple[Any, str]] = [
    (True, "at #: found true, expected a schema as an object"),
    ([], "at #: found [], expected a schema as an object"),
    ({"type": "text"}, "at #/type: this is no JSON Schema: 'text'"),
    ({"properties": {"a": {"minLength": "3"}}}, "at #/properties/a/minLength: this is no JSON Schema"),
    ({"$schema": 5}, "at #/$schema: this is no JSON Schema"),
    ({"anyOf": []}, "at #/anyOf: this is no JSON Schema"),
    ({"enum": []}, "found an enum without values"),
    ({"type": "object", "properties": {"a": True}}, "at #/properties/a: found true, expected an object"),
    ({"$ref": "#/$defs/x", "$defs": {"y": {}}}, "but there is no 'x' on this way"),
    ({"properties": {"a": {"$ref": "#"}}}, "at #/properties/a: found $ref '#', expected one into the same schema"),
    ({"$ref": "https://example.com/schema"}, "expected one into the same schema"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "without a value"),
    ({"anyOf": [{"$ref": "#/anyOf/0"}]}, "refers to itself without a value"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength 5 above maxLength 2"),
    ({"type": "array", "minItems": 3, "maxItems": 1}, "minItems 3 above maxItems 1"),
    ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum 3 above maximum 1"),
    ({"type": "string", "minLength": 2001}, "expected 2,000 at most"),
    ({"type": "string", "minLength": 2.0}, "found minLength 2.0, expected a whole number"),
    ({"type": "string", "pattern": "^(a$"}, "no regular expression"),
    ({"type": "string", "pattern": "^a{3,2}$"}, "no regular expression"),
    ({"type": "string", "pattern": "^a{3000}$"}, "repetition of more than 2,000"),
    ({"$ref": "#/default", "default": {"properties": 5}}, "found properties 5, which is of the wrong type"),
    ({1: {"type": "string"}}, "found the key 1, expected text"),
    ({"default": float("nan")}, "is no JSON"),
    ({"default": {1, 2}}, "is no JSON"),
]

WARNINGS: list[tuple[dict[str, Any], str]] = [
    ({"type": "number", "minimum": 3}, "does not look at 'minimum' here"),
    ({"not": {"type": "string"}}, "does not look at 'not'"),
    ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "does not look at 'uniqueItems'"),
    ({"type": "string", "format": "email"}, "does not look at 'format: email'"),
    ({"type": "string", "pattern": "^a$", "maxLength": 3}, "does not look at 'maxLength'"),
    ({"type": "string", "pattern": "a"}, "without ^ at its start and $ at its end"),
    ({"type": "string", "pattern": "^(?=a)b$"}, "cannot make a grammar of"),
    ({"type": "string", "maxLength": 5000}, "as no limit"),
    ({"type": "object", "required": ["a"]}, "'a' is required, but not among the properties"),
]


@pytest.mark.parametrize("schema", GOOD, ids=str)
def test_a_schema_that_is_kept_to_has_no_problem(schema: dict[str, Any]) -> None:
    assert check_json_schema(schema) == ()


@pytest.mark.parametrize(("schema", "said"), ERRORS, ids=str)
def test_an_error_says_where_and_why(schema: object, said: str) -> None:
    first = check_json_schema(schema)[0]
    assert first.severity is Severity.ERROR
    assert said in str(first)


@pytest.mark.parametrize(("schema", "said"), WARNINGS, ids=str)
def test_what_llama_server_passes_over_is_a_warning(schema: dict[str, Any], said: str) -> None:
    (only,) = check_json_schema(schema)
    assert only.severity is Severity.WARNING
    assert said in str(only)


def test_one_keyword_that_is_passed_over_often_is_one_warning() -> None:
    properties = {f"p{i}": {"type": "number", "minimum": 0} for i in range(50)}
    (only,) = check_json_schema({"type": "object", "properties": properties})
    assert "(and 49 times more)" in str(only)


def test_deep_and_large_schemas_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    assert f"nested deeper than {MAX_SCHEMA_DEPTH}" in str(check_json_schema(deep)[0])
    assert "too large" in str(check_json_schema({"enum": list(range(MAX_SCHEMA_VALUES))})[0])
    assert "too large" in str(check_json_schema({"title": "a" * 2_000_000, "type": "string"})[0])


def test_lists_of_types_in_each_other_come_to_an_end() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(30):
        schema = {"type": ["object", "string"], "allOf": [schema]}
    assert "too many steps" in str(check_json_schema(schema)[0])


KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "items", "prefixItems", "anyOf", "allOf", "oneOf", "enum", "const", "$ref", "$defs"),
        *("$schema", "pattern", "minLength", "maxItems", "minItems", "required", "additionalProperties", "format", "a"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3000)
    | st.floats()
    | st.sampled_from(["string", "object", "array", "integer", "#/a", "#/$defs/a", "^a$", "^(", "#", "date"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYWORDS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=50)
@given(VALUES)
def test_no_value_raises_anything(value: object) -> None:
    assert all(problem.message for problem in check_json_schema(value))
