"""What our check of JSON schemas says, against what the real llama-server makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.json_schema import check_json_schema

from .conftest import Server

TREE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}}

VALID: list[dict[str, Any]] = [
    {},
    {"type": ["string", "null"]},
    {"enum": ["a", 1, None]},
    {"const": {"a": 1}},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]},
    {"type": "array", "items": [{"type": "string"}, {"type": "null"}]},
    {"type": "array", "items": {"type": "string"}, "maxItems": 1997},
    {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}, "maxItems": 1997},
    {"type": "array", "items": {"type": "string"}, "maxItems": 2002},
    {"type": "array", "items": {"type": "string"}, "maxItems": 5000},
    {"type": "string", "maxLength": 2000},
    {"type": "string", "pattern": "^[a-z]{1,8}$"},
    {"type": "string", "pattern": "^(?=a)b$"},
    {"type": "string", "pattern": "a"},
    {"type": "number", "minimum": 3},
    {"not": {"type": "string"}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "null"}}}]},
]

INVALID: list[Any] = [
    True,
    {"type": "text"},
    {"type": []},
    {"anyOf": []},
    {"enum": []},
    {"type": "object", "properties": {"a": True}},
    {"type": "array", "items": False},
    {"$ref": "#/$defs/x", "$defs": {"y": {}}},
    {"properties": {"a": {"$ref": "#"}}},
    {"$ref": "https://example.com/schema"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"anyOf": [{"$ref": "#/anyOf/0"}]},
    {"type": "array", "items": {"type": "string"}, "maxItems": 2000},
    {"type": "string", "minLength": 2001},
    {"type": "string", "minLength": 2.0},
    {"type": "string", "pattern": "^(a$"},
    {"type": "string", "pattern": "^[a$"},
    {"type": "string", "pattern": "^*$"},
    {"type": "string", "pattern": "^a{3000}$"},
]


def errors(schema: object) -> list[str]:
    return [str(problem) for problem in check_json_schema(schema) if problem.severity is Severity.ERROR]


@pytest.mark.parametrize("schema", VALID, ids=str)
def test_what_we_call_valid_the_server_takes(server: Server, schema: dict[str, Any]) -> None:
    assert errors(schema) == []
    answer = server.completion("Hi", json_schema=schema, n_predict=1)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("schema", INVALID, ids=str)
def test_what_we_call_invalid_the_server_refuses(server: Server, schema: object) -> None:
    assert errors(schema) != []
    assert server.completion("Hi", json_schema=schema, n_predict=1).status in (400, 500)


def test_an_answer_keeps_to_the_schema(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    assert check_json_schema(schema) == ()
    answer = json.loads(server.completion("A person as JSON:", json_schema=schema, n_predict=100).body["content"])
    assert set(answer) == {"name", "age"}
    assert 0 <= answer["age"] <= 99
