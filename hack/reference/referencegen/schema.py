"""The fields of a type, from its JSON schema: path, what it takes, documentation."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamamodel_operator.api.base import ApiModel

__all__ = ["ITEM", "Field", "fields_of", "leaves", "one_of", "walk"]

ITEM = "[]"
"""Ends the name of a list whose items have fields of their own."""

_KUBERNETES_TYPE = "x-llamamodel-kubernetes-type"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field.

    Attributes:
        path: names from the top of the type; a list of objects ends in [].
        schema: what it takes; references, and `or null`, taken away.
        required: whether the object that it is in must have it.
        choice: path of the object nearest above of which exactly one field is given; None where there is none.
        children: its own fields.
    """

    path: tuple[str, ...]
    schema: Mapping[str, Any]
    required: bool
    choice: tuple[str, ...] | None
    children: tuple[Field, ...] = field(default=())

    @property
    def name(self) -> str:
        """The path as one writes it, such as loraAdapters[].scale."""
        return ".".join(self.path)

    @property
    def description(self) -> str:
        """Its documentation, on one line."""
        return " ".join(str(self.schema.get("description", "")).split())

    @property
    def rules(self) -> tuple[str, ...]:
        """Messages of the rules that the API server checks."""
        return tuple(rule["message"] for rule in self.schema.get("x-kubernetes-validations", ()))

    @property
    def kubernetes_type(self) -> str | None:
        """Kubernetes' own type of it or of its items, such as core.v1.Toleration."""
        items = self.schema.get("items", {})
        name: str | None = self.schema.get(_KUBERNETES_TYPE) or items.get(_KUBERNETES_TYPE)
        return name


@functools.cache
def fields_of(model: type[ApiModel]) -> tuple[Field, ...]:
    """The fields at the top of a type, each with those below it."""
    schema = model.model_json_schema(by_alias=True)
    return _Reader(schema.pop("$defs", {})).fields(schema, above=(), choice=None)


def walk(fields: tuple[Field, ...]) -> Iterator[Field]:
    """All of them, each before those below it."""
    for each in fields:
        yield each
        yield from walk(each.children)


def leaves(fields: tuple[Field, ...]) -> Iterator[Field]:
    """Those that have no fields of their own."""
    return (each for each in walk(fields) if not each.children)


def one_of(schema: Mapping[str, Any]) -> bool:
    """Whether exactly one field of this object is given."""
    return any(rule["message"].startswith("exactly one of ") for rule in schema.get("x-kubernetes-validations", ()))


class _Reader:
    """One reading, with the definitions that references point to."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def fields(
        self, schema: Mapping[str, Any], *, above: tuple[str, ...], choice: tuple[str, ...] | None
    ) -> tuple[Field, ...]:
        choice = above if one_of(schema) else choice
        required = schema.get("required", ())
        return tuple(
            self._field(self.plain(part), path=(*above, name), required=name in required, choice=choice)
            for name, part in schema.get("properties", {}).items()
        )

    def _field(
        self, schema: Mapping[str, Any], *, path: tuple[str, ...], required: bool, choice: tuple[str, ...] | None
    ) -> Field:
        items = schema.get("items", {})
        if "properties" in items:
            path = (*path[:-1], path[-1] + ITEM)
        children = self.fields(items if "properties" in items else schema, above=path, choice=choice)
        return Field(path=path, schema=schema, required=required, choice=choice, children=children)

    def plain(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema without references and without `or null`, its items likewise."""
        if "$ref" in schema:
            target = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
            return self.plain(_merged(target, {k: v for k, v in schema.items() if k != "$ref"}))
        if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
            (only,) = [branch for branch in schema["anyOf"] if branch.get("type") != "null"]
            return self.plain(_merged(only, {k: v for k, v in schema.items() if k != "anyOf"}))
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), Mapping):
                schema = {**schema, key: self.plain(schema[key])}
        return schema


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both; of rules, those of both, as the API server checks them."""
    rules = "x-kubernetes-validations"
    both = [*below.get(rules, ()), *above.get(rules, ())]
    return {**below, **above} | ({rules: both} if both else {})
