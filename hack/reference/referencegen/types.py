"""What a field takes, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from referencegen.markdown import code, listed, prose
from referencegen.schema import Field

__all__ = ["takes"]

_QUANTITIES = "https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"


def takes(field: Field) -> str:
    """Type, bounds and values of a field, as Markdown without a full stop."""
    if name := field.kubernetes_type:
        kind = f"{_kubernetes_link(name)} of Kubernetes"
        return f"{_list(field.schema)} {kind}" if "items" in field.schema else kind
    return _takes(field.schema)


def _takes(schema: Mapping[str, Any]) -> str:
    return "; ".join([_kind(schema), *_rules(schema)])


def _kind(schema: Mapping[str, Any]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        if _is_quantity(schema):
            return f"[quantity]({_QUANTITIES}) such as `4Gi` or `500m`"
        return "text or a whole number"
    if "enum" in schema:
        return "one of " + listed(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return f"whole number{_bounds(schema)}"
        case "number":
            return f"number{_bounds(schema)}"
        case "array":
            items = schema["items"]
            return f"{_list(schema)} {'objects' if 'properties' in items else _takes(items)}"
        case "object" if isinstance(schema.get("additionalProperties"), Mapping):
            return f"names{_most(schema)}, each with {_takes(schema['additionalProperties'])}"
        case "object":
            return "object" if "properties" in schema else f"any fields{_most(schema)}"
    if schema.get("format") == "date-time":
        return "time"
    return f"text{_length(schema)}"


def _rules(schema: Mapping[str, Any]) -> Iterator[str]:
    """Messages of rules, but for those that the type itself says."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if not rule["message"].startswith("not a quantity"):
            yield prose(rule["message"])


def _is_quantity(schema: Mapping[str, Any]) -> bool:
    return any("isQuantity" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return "" if high is None else f" up to {_number(high)}"
    return f" from {_number(low)} " + ("on" if high is None else f"to {_number(high)}")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _length(schema: Mapping[str, Any]) -> str:
    most = schema.get("maxLength")
    return f" of at most {most} characters" if most else ""


def _most(schema: Mapping[str, Any]) -> str:
    most = schema.get("maxProperties")
    return f", at most {most}" if most else ""


def _list(schema: Mapping[str, Any]) -> str:
    most = schema.get("maxItems")
    return f"list of at most {most}:" if most else "list of"


def _kubernetes_link(name: str) -> str:
    document = json.loads(
        files("llamamodel_operator.api").joinpath("kubernetes_schemas.json").read_text(encoding="utf-8")
    )
    release = ".".join(document["kubernetes"].split(".")[:2])
    group, version, kind = name.split(".")
    url = f"https://kubernetes.io/docs/reference/generated/kubernetes-api/{release}/#{kind.lower()}-{version}-{group}"
    return f"[{code(kind)}]({url})"
