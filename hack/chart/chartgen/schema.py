"""values.schema.json: its shape is written by hand; descriptions and Kubernetes' own types are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chartgen.values import Value, ValuesError
from llamamodel_operator.core.schema_check import WITHOUT_DEFAULT

__all__ = ["complete_schema"]

MODEL_DEFAULTS = "modelDefaults"

_NOT_OURS = frozenset({"global"})
"""Keys that Helm itself puts among the values."""


def complete_schema(
    schema: Mapping[str, Any], *, values: list[Value], kubernetes_types: Mapping[str, Any], spec: Mapping[str, Any]
) -> dict[str, Any]:
    """The schema with descriptions from values.yaml, definitions of the Kubernetes types that it refers to, and the
    definition `modelDefaults`.

    `kubernetes_types` are structural schemas by names such as `core.v1.Toleration`; `spec` is that of a LlamaModel's
    spec.

    Raises:
        ValuesError: a value has no schema, a schema no value, or an object takes any key.
    """
    definitions = {name: value for name, value in schema["definitions"].items() if name not in kubernetes_types}
    named = sorted(name for name in kubernetes_types if f'"#/definitions/{name}"' in _references(schema))
    definitions |= {name: _closed(kubernetes_types[name]) for name in named}
    definitions[MODEL_DEFAULTS] = _defaults(spec)
    described = _described(schema, values, path=())
    return {**described, "definitions": definitions}


def _described(schema: Mapping[str, Any], values: list[Value], *, path: tuple[str, ...]) -> dict[str, Any]:
    where = ".".join(path) or "the top level"
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is not False:
        raise ValuesError(f"values.schema.json: {where} needs additionalProperties: false, else typos pass")
    by_key = {value.path[-1]: value for value in values}
    if missing := [key for key in by_key if key not in properties]:
        raise ValuesError(f"values.schema.json: {where} lacks {', '.join(missing)}, which values.yaml has")
    if missing := [key for key in properties if key not in by_key and key not in _NOT_OURS]:
        raise ValuesError(f"values.yaml: {where} lacks {', '.join(missing)}, which values.schema.json has")
    result = {}
    for key, property_ in properties.items():
        if key in _NOT_OURS:
            result[key] = property_
            continue
        value = by_key[key]
        if "properties" in property_:
            property_ = _described(property_, value.children, path=value.path)
        rest = {name: part for name, part in property_.items() if name != "description"}
        result[key] = ({"description": value.description} if value.description else {}) | rest
    return {**schema, "properties": result}


def _defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a spec: nothing of it is required, and what belongs to each LlamaModel is not in it."""
    fields = {name: part for name, part in spec["properties"].items() if name not in WITHOUT_DEFAULT}
    return _nullable(_closed({"type": "object", "properties": fields}))


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with null for any field: so a values file takes back what one before it sets, and the operator leaves
    such fields out."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _or_null(_nullable(part)) for name, part in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _nullable(schema[key])
    return result


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": [*types, "null"], **({"enum": [*schema["enum"], None]} if "enum" in schema else {})}


def _references(schema: Any) -> str:
    return repr(schema).replace("'", '"')


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema in JSON Schema's words, that refuses unknown keys; without prose."""
    result: dict[str, Any] = {}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    for key, value in schema.items():
        match key:
            case "type" | "required" | "enum" | "minimum" | "maximum" | "minLength" | "maxLength":
                result[key] = value
            case "minItems" | "maxItems" | "minProperties" | "maxProperties":
                result[key] = value
            case "properties":
                result[key] = {name: _closed(part) for name, part in value.items()}
                result["additionalProperties"] = False
            case "items" | "additionalProperties":
                result[key] = _closed(value)
    return result
