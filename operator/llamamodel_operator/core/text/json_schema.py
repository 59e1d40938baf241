"""Is a JSON Schema valid, and what of it does llama-server keep to?

llama-server makes a grammar of a schema (common/json-schema.cpp and common/json-schema-to-grammar.cpp in llama.cpp).
It refuses little, and passes over what it does not know: an answer may then break the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from jsonschema import Draft4Validator, Draft6Validator, Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.grammar import MAX_REPETITIONS
from llamamodel_operator.core.text.problem import LONGEST_SHOWN, MAX_TEXT_BYTES, Problem

__all__ = ["MAX_SCHEMA_DEPTH", "MAX_SCHEMA_VALUES", "check_json_schema", "number_of_values", "refused_by_server"]

MAX_SCHEMA_DEPTH = 64
"""Objects and lists in each other. A rule of ours."""

MAX_SCHEMA_VALUES = 5_000
"""Objects, lists, numbers, … in a schema. A rule of ours, to check it in well under a second."""

_MOST_PROBLEMS = 20

_DRAFTS: dict[str, type[Validator]] = {
    "http://json-schema.org/draft-04/schema": Draft4Validator,
    "http://json-schema.org/draft-06/schema": Draft6Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
}
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}) | {
    *("examples", "deprecated", "readOnly", "writeOnly")
}
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_FORMAT = re.compile(r"date|time|date-time|uuid[1-5]?")
_UNREADABLE = (
    "unterminated character set",
    "unterminated subpattern",
    "unbalanced parenthesis",
    "nothing to repeat",
    "min repeat",
)
_TIMES = re.compile(r"\{([0-9]+)")
_NO_GRAMMAR = re.compile(r"\(\?(?!:)|\\[bBAZzGpPkK1-9]")
"""Look-around, names, word boundaries, back references."""


def check_json_schema(schema: object) -> tuple[Problem, ...]:
    """What is wrong with a schema, and in warnings what of it llama-server does not keep to.

    Args:
        schema: as it comes from YAML or JSON.
    """
    if problem := _size(schema):
        return (problem,)
    if not isinstance(schema, dict):
        found = json.dumps(schema)[:LONGEST_SHOWN]
        return (_problem("#", f"found {found}, expected a schema as an object, such as {{type: object}}"),)
    try:
        if problem := _validity(schema):
            return (problem,)
        problems = list(_Converter(schema).problems())
    except (RecursionError, _TooManyError):
        return (Problem(message="the schema takes too many steps to follow: use fewer $ref and fewer types in lists"),)
    problems.sort(key=lambda problem: problem.severity is not Severity.ERROR)
    return tuple(problems[:_MOST_PROBLEMS])


def refused_by_server(schema: object, *, most_values: int) -> Problem | None:
    """Why llama-server would refuse a schema, or not get to an end with it; None also where the schema is larger than
    is looked at, or nested deeper. Ten times as quick as `check_json_schema`, which asks as well whether a schema is
    valid.

    Args:
        schema: as it comes from JSON.
        most_values: objects, lists, numbers, … that are looked at.
    """
    if not isinstance(schema, dict) or _size(schema, most_values=most_values):
        return None
    try:
        problems = _Converter(schema, most_nodes=2 * most_values).problems()
        return next((problem for problem in problems if problem.severity is Severity.ERROR), None)
    except (RecursionError, _TooManyError):
        return None


def number_of_values(schema: object, *, most: int) -> int:
    """Objects, lists, numbers, … in it; of more than `most`, one more than these."""
    number, todo = 0, [schema]
    while todo and number <= most:
        value = todo.pop()
        number += 1
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return number


def _problem(path: str, message: str, *, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(message=f"at {path[:200]}: {message}", severity=severity)


def _size(schema: object, *, most_values: int = MAX_SCHEMA_VALUES) -> Problem | None:
    n_values, n_characters = 0, 0
    todo: list[tuple[object, int]] = [(schema, 1)]
    while todo:
        value, depth = todo.pop()
        n_values += 1
        n_characters += len(value) if isinstance(value, str) else 0
        if depth > MAX_SCHEMA_DEPTH:
            return Problem(message=f"the schema is nested deeper than {MAX_SCHEMA_DEPTH}: use $ref and $defs")
        if n_values > most_values or n_characters > MAX_TEXT_BYTES:
            return Problem(message=f"the schema is too large, expected {most_values:,} values at most: shorten it")
        if isinstance(value, dict):
            if odd := next((key for key in value if not isinstance(key, str)), None):
                return Problem(message=f"found the key {odd!r:.40}, expected text: put it in quotes")
            todo += [(child, depth + 1) for child in value.values()]
            n_characters += sum(map(len, value))
        elif isinstance(value, list):
            todo += [(child, depth + 1) for child in value]
        elif not (
            value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))
        ):
            return Problem(message=f"found {str(value)[:40]!r}, which is no JSON: put it in quotes")
    return None


def _validity(schema: dict[str, Any]) -> Problem | None:
    named = schema.get("$schema")
    draft = _DRAFTS.get(named.rstrip("#")) if isinstance(named, str) else None
    worst = best_match((draft or Draft202012Validator)((draft or Draft202012Validator).META_SCHEMA).iter_errors(schema))
    if worst is None or (draft is None and Draft7Validator(Draft7Validator.META_SCHEMA).is_valid(schema)):
        return None  # many schemas name no draft and have lists below `items`, as was right up to draft 7
    return _problem(_pointer(worst.absolute_path), f"this is no JSON Schema: {worst.message[:300]}")


def _pointer(path: Any) -> str:
    return "/".join(("#", *(str(part) for part in path)))


class _TooManyError(Exception):
    pass


class _Converter:
    """Walks a schema as `common_chat_schema_builder` does, and looks at what that makes of it."""

    def __init__(self, root: dict[str, Any], *, most_nodes: int = 2 * MAX_SCHEMA_VALUES) -> None:
        self.root = root
        self.most_nodes = most_nodes
        self.seen: set[str] = set()
        self.n_nodes = 0
        self.ignored: dict[str, tuple[str, int]] = {}
        self.leads_to: dict[str, list[str]] = {}
        """Schemas that stand for others as they are: a circle of them never gets to a value."""

    def problems(self) -> Iterator[Problem]:
        yield from self.node(self.root, "#")
        for keyword, (path, n_times) in self.ignored.items():
            more = f" (and {n_times - 1} times more)" if n_times > 1 else ""
            message = f"llama-server does not look at {keyword!r} here{more}: answers need not keep to it"
            yield _problem(path, message, severity=Severity.WARNING)
        for path in self.leads_to:
            if self.circle(path):
                yield _problem(path, "this refers to itself without a value in between: remove the circle")
                return

    def circle(self, start: str) -> bool:
        reached, todo = set(), list(self.leads_to[start])
        while todo:
            path = todo.pop()
            if path == start:
                return True
            if path not in reached:
                reached.add(path)
                todo += self.leads_to.get(path, ())
        return False

    def node(self, schema: object, path: str) -> Iterator[Problem]:
        self.n_nodes += 1
        if self.n_nodes > self.most_nodes:  # a list of types makes several schemas of one, and so on inside it
            raise _TooManyError
        if not isinstance(schema, dict):
            yield _problem(
                path, f"found {json.dumps(schema)[:40]}, expected an object: llama-server takes {{}} for true"
            )
            return
        if "$ref" in schema:
            yield from self.reference(schema, path)
            return
        if wrong := next((key for key in schema if not isinstance(schema[key], _SHAPES.get(key, object))), None):
            yield _problem(path, f"found {wrong} {json.dumps(schema[wrong])[:40]}, which is of the wrong type")
            return
        kind = _kind(schema)
        if kind not in _READ:
            yield _problem(path, f"found the type {kind[:40]!r}, expected one of {', '.join(sorted(_TYPES))}")
            return
        self.note(schema, path, _READ[kind])
        match kind:
            case "oneOf" | "anyOf" | "allOf":
                yield from self.alternatives(schema[kind], f"{path}/{kind}", plain=kind != "allOf", parent=path)
            case "types":
                for index, name in enumerate(schema["type"]):
                    yield from self.node(schema | {"type": str(name)}, f"{path}/type/{index}")
            case "enum":
                if not schema["enum"]:
                    yield _problem(path, "found an enum without values, expected one at least")
            case "object":
                yield from self.object(schema, path)
            case "array":
                yield from self.array(schema, path)
            case "string":
                yield from self.string(schema, path)
            case "integer":
                yield from _order(schema, path, "minimum", "maximum")

    def note(self, schema: Mapping[str, Any], path: str, read: frozenset[str]) -> None:
        for keyword in schema:
            if keyword not in read and keyword not in _ANNOTATIONS:
                first, n_times = self.ignored.get(keyword, (path, 0))
                self.ignored[keyword] = (first, n_times + 1)

    def reference(self, schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
        target = schema["$ref"]
        self.note(schema, path, frozenset({"$ref"}))
        if not isinstance(target, str) or not target.startswith("#/"):
            yield _problem(
                path, f"found $ref {str(target)[:80]!r}, expected one into the same schema, such as #/$defs/name"
            )
            return
        self.leads_to.setdefault(path, []).append(target)
        if target in self.seen:
            return
        self.seen.add(target)
        found: Any = self.root
        for part in target.split("/")[1:]:
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and len(part) < 6 and int(part) < len(found):
                found = found[int(part)]
            else:
                message = (
                    f"found $ref {target[:80]!r}, but there is no {part[:40]!r} on this way: correct it, or define it"
                )
                yield _problem(path, message)
                return
        yield from self.node(found, target)

    def alternatives(self, schemas: list[Any], path: str, *, plain: bool, parent: str) -> Iterator[Problem]:
        for index, alternative in enumerate(schemas):
            if plain:
                self.leads_to.setdefault(parent, []).append(f"{path}/{index}")
            yield from self.node(alternative, f"{path}/{index}")

    def object(self, schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
        properties = schema.get("properties", {})
        for name, child in properties.items():
            yield from self.node(child, f"{path}/properties/{name}")
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            yield from self.node(more, f"{path}/additionalProperties")
        if missing := [name for name in schema.get("required", ()) if str(name) not in properties]:
            message = f"{missing[0]!r} is required, but not among the properties: llama-server passes over it"
            yield _problem(path, message, severity=Severity.WARNING)

    def array(self, schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
        key = "items" if "items" in schema else "prefixItems"
        if isinstance(items := schema.get(key), list):
            for index, item in enumerate(items):
                yield from self.node(item, f"{path}/{key}/{index}")
            self.note({name: 0 for name in schema if name in ("minItems", "maxItems")}, path, frozenset())
            return
        if key in schema:
            yield from self.node(items, f"{path}/{key}")
        yield from _order(schema, path, "minItems", "maxItems")
        if MAX_REPETITIONS - 2 <= schema.get("maxItems", 0) <= MAX_REPETITIONS + 1:
            # it writes them out as items in a group, which count as well; above, it reads the number as no limit
            message = f"found maxItems {schema['maxItems']:,}, expected {MAX_REPETITIONS - 3:,} at most"
            yield _problem(path, f"{message}: llama-server refuses it")
            return
        yield from _repetitions(schema, path, "minItems", "maxItems")

    def string(self, schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
        limits = {"minLength", "maxLength"} & schema.keys()
        known_format = _FORMAT.fullmatch(str(schema.get("format", "date")))
        if "pattern" in schema:
            yield from _pattern(schema["pattern"], path)
            self.note(dict.fromkeys([*limits, *(["format"] if "format" in schema else [])]), path, frozenset())
        elif "format" in schema and known_format:
            self.note(dict.fromkeys(limits), path, frozenset())
        else:
            if "format" in schema:
                name = f"format: {schema['format']}"[:LONGEST_SHOWN]
                self.note({name: 0}, path, frozenset())
            yield from _order(schema, path, "minLength", "maxLength")
            yield from _repetitions(schema, path, "minLength", "maxLength")


_NUMBER = (int, float)
_SHAPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "enum", "required"), list),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", *_BOUNDS), _NUMBER),
    "properties": dict,
    "additionalProperties": (dict, bool),
    "pattern": str,
    "type": (str, list),
}
"""What keywords must be. A $ref may lead to places that the check of the whole schema does not look at."""

_READ: dict[str, frozenset[str]] = {
    "oneOf": frozenset({"oneOf"}),
    "anyOf": frozenset({"anyOf"}),
    "allOf": frozenset({"allOf", "type"}),
    "types": frozenset({*_BOUNDS, "type", "const", "enum", "properties", "required", "additionalProperties", "items"})
    | {"prefixItems", "minItems", "maxItems", "pattern", "format", "minLength", "maxLength", "allOf"},
    "const": frozenset({"const", "type"}),
    "enum": frozenset({"enum", "type"}),
    "object": frozenset({"type", "properties", "required", "additionalProperties"}),
    "array": frozenset({"type", "items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"type", "pattern", "format", "minLength", "maxLength"}),
    "integer": frozenset({"type", *_BOUNDS}),
    "number": frozenset({"type"}),
    "boolean": frozenset({"type"}),
    "null": frozenset({"type"}),
    "any": frozenset(),
}
"""The keywords that are read, per kind of schema."""


def _kind(schema: Mapping[str, Any]) -> str:
    """What llama.cpp takes a schema for; it looks at these things in this order."""
    named = schema.get("type")
    structured = "properties" in schema or schema.get("additionalProperties", True) is not True
    if either := next((key for key in ("oneOf", "anyOf") if key in schema), None):
        return either
    if isinstance(named, list):
        return "types"
    if fixed := next((key for key in ("const", "enum") if key in schema), None):
        return fixed
    if "allOf" in schema and not structured and named in (None, "object", "string"):
        return "allOf"
    if named is not None:
        return str(named)
    if structured:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if {"pattern", "minLength", "maxLength"} & schema.keys() or _FORMAT.fullmatch(str(schema.get("format"))):
        return "string"
    return "any"


def _order(schema: Mapping[str, Any], path: str, least: str, most: str) -> Iterator[Problem]:
    if least in schema and most in schema and schema[least] > schema[most]:
        yield _problem(path, f"found {least} {schema[least]} above {most} {schema[most]}: no answer could keep to both")


def _repetitions(schema: Mapping[str, Any], path: str, least: str, most: str) -> Iterator[Problem]:
    for keyword in (least, most):
        if isinstance(schema.get(keyword), float):
            yield _problem(path, f"found {keyword} {schema[keyword]}, expected a whole number without a point")
    if schema.get(least, 0) > MAX_REPETITIONS:
        yield _problem(
            path, f"found {least} {schema[least]:,}, expected {MAX_REPETITIONS:,} at most: llama-server refuses it"
        )
    if schema.get(most, 0) > MAX_REPETITIONS:
        message = f"llama-server reads {most} over {MAX_REPETITIONS:,} as no limit: found {schema[most]:,}"
        yield _problem(path, message, severity=Severity.WARNING)


def _pattern(pattern: str, path: str) -> Iterator[Problem]:
    free = "answers need not keep to it"
    if not (len(pattern) > 1 and pattern.startswith("^") and pattern.endswith("$")):
        message = f"llama-server passes over a pattern without ^ at its start and $ at its end; {free}"
        yield _problem(path, message, severity=Severity.WARNING)
        return
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if any(phrase in str(error) for phrase in _UNREADABLE):
            yield _problem(path, f"found a pattern that is no regular expression: {error}")
            return
    if _NO_GRAMMAR.search(pattern):
        message = f"the pattern has what llama-server cannot make a grammar of (look-around, \\b, \\1, …); {free}"
        yield _problem(path, message, severity=Severity.WARNING)
    elif any(len(times) > 4 or int(times) > MAX_REPETITIONS for times in _TIMES.findall(pattern)):
        yield _problem(
            path, f"found a repetition of more than {MAX_REPETITIONS:,} in the pattern: llama-server refuses it"
        )
