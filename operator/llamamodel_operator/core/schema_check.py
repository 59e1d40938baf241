"""What the API server says of a manifest before anything else looks at it: unknown fields, types, bounds, names.

The types of `api/` leave that to the API server. A dry run without a cluster has no API server, so it is checked here,
against the very schema that is in the CustomResourceDefinition. Rules in CEL are not: each has its twin in the types.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import islice
from typing import Any

from llamamodel_operator.api.base import API_VERSION, GROUP, KIND
from llamamodel_operator.api.crd import structural_schema
from llamamodel_operator.api.findings import Finding, FindingCode, Severity, sentence
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = [
    "check_defaults",
    "check_schema",
    "defaults_problem",
    "is_meant_as_model",
    "kind_of",
    "shown",
    "without_nulls",
]

_MOST_FINDINGS = 100
"""Of one object; nobody reads more."""

_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_INT_BITS = {"int32": 31, "int64": 63}


def check_schema(raw: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What the API server would refuse in a LlamaModel: unknown fields, wrong types, values out of bounds, bad names.

    Nulls count as left out, as in the API server. Never raises, whatever the object holds.
    """
    return tuple(islice(_object(raw), _MOST_FINDINGS))


WITHOUT_DEFAULT = frozenset({"apiKeySecretRef", "model", "replicas", "servedModelName", "suspend"})
"""Fields of a spec that belong to each LlamaModel. The command line looks for apiKeySecretRef in it alone."""


def check_defaults(spec: object, *, path: str) -> tuple[Finding, ...]:
    """The same for a part of a spec, in which nothing is required: the operator's `modelDefaults`."""
    found = _value(_pruned(spec, _spec_schema()), _spec_schema(), path)
    missing = f"{path}.model"
    return tuple(islice((finding for finding in found if finding.field != missing), _MOST_FINDINGS))


def defaults_problem(spec: Mapping[str, Any], *, path: str) -> str:
    """What is wrong with the defaults of an operator or a gateway; empty where nothing is."""
    if own := WITHOUT_DEFAULT & spec.keys():
        return f"{', '.join(sorted(own))}: belongs to each LlamaModel and can have no default"
    return "; ".join(sentence(finding) for finding in check_defaults(spec, path=path))


def without_nulls(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The object as the API server stores it: a field whose value is null is left out.

    Not in what is passed on as it is, such as a JSON schema, and not in lists. (apiextensions-apiserver,
    defaulting.PruneNonNullableNullsWithoutDefaults.)
    """
    return {**raw, "spec": _pruned(raw.get("spec"), _spec_schema())} if "spec" in raw else dict(raw)


def is_meant_as_model(raw: Mapping[str, Any]) -> bool:
    """Whether an object is a LlamaModel, or was meant as one: its kind or its group may be misspelt."""
    version, kind = raw.get("apiVersion"), raw.get("kind")
    group = version.partition("/")[0] if isinstance(version, str) and "/" in version else ""
    if group == GROUP:
        return True
    if not isinstance(kind, str) or (group and _likeness(group, GROUP) < 0.7):
        return False
    return _likeness(kind, KIND) >= (0.85 if group or kind[:1].isupper() else 0.95)


# --- the object


def _object(raw: Mapping[str, Any]) -> Iterator[Finding]:
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if raw.get(field) != expected:
            found = f"found {shown(raw[field])}" if raw.get(field) is not None else "it is missing"
            yield _invalid(field, f"must be {expected}; {found}", f"write {field}: {expected}")
    yield from _unknown(raw, _TOP_LEVEL, "")
    yield from _metadata(raw.get("metadata"))
    if raw.get("spec") is None:
        yield _invalid("spec", "is missing: it must say at least which model to serve", "add spec.model.pvc")
    else:
        yield from _value(_pruned(raw["spec"], _spec_schema()), _spec_schema(), "spec")


def _metadata(metadata: object) -> Iterator[Finding]:
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        yield _invalid("metadata", f"must be an object; found {kind_of(metadata)}")
        return
    yield from _unknown(metadata, _METADATA, "metadata.")
    name, prefix = metadata.get("name"), metadata.get("generateName")
    if name is None and prefix is None:
        yield _invalid("metadata.name", "is missing", f"give the {KIND} a name, such as qwen3-8b")
    yield from _name("metadata.name", name, _SUBDOMAIN, 253, "lower case letters, digits, '-' and '.'")
    yield from _name("metadata.namespace", metadata.get("namespace"), _LABEL, 63, "lower case letters, digits and '-'")
    if isinstance(prefix, str):  # the API server adds five characters
        yield from _name("metadata.generateName", f"{prefix}x", _SUBDOMAIN, 253, "lower case letters, digits, '-', '.'")
    elif prefix is not None:
        yield _invalid("metadata.generateName", f"must be text; found {kind_of(prefix)}")
    for field in ("labels", "annotations"):
        yield from _words(f"metadata.{field}", metadata.get(field), are_labels=field == "labels")


def _name(field: str, name: object, pattern: re.Pattern[str], longest: int, allowed: str) -> Iterator[Finding]:
    if name is None:
        return
    if not isinstance(name, str):
        yield _invalid(field, f"must be text; found {kind_of(name)}", _quoting(name))
    elif len(name) > longest:
        yield _invalid(field, f"must have at most {longest} characters; found {len(name)}")
    elif not pattern.fullmatch(name):
        lowered = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
        yield _invalid(
            field,
            f"{shown(name)} is no name: {allowed} are allowed, with a letter or digit at either end",
            f"write {lowered}" if lowered and pattern.fullmatch(lowered) else None,
        )


def _words(field: str, words: object, *, are_labels: bool) -> Iterator[Finding]:
    if words is None:
        return
    if not isinstance(words, Mapping):
        yield _invalid(field, f"must be an object; found {kind_of(words)}")
        return
    for key, value in words.items():
        prefix, slash, name = str(key).rpartition("/")
        if not _QUALIFIED.fullmatch(name) or (slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253)):
            yield _invalid(field, f"{shown(key)} is no key: write one such as team or example.com/team")
        if not isinstance(value, str | None):
            yield _invalid(f"{field}.{key}", f"must be text; found {kind_of(value)}", _quoting(value))
        elif are_labels and value and not _QUALIFIED.fullmatch(value):
            yield _invalid(
                f"{field}.{key}",
                f"{shown(value)} is no label value: up to 63 letters, digits, '-', '_' and '.' are allowed, with a"
                " letter or digit at either end",
                "put free text into metadata.annotations",
            )


# --- the schema


@functools.cache
def _spec_schema() -> Mapping[str, Any]:
    return structural_schema(LlamaModelSpec)


def _pruned(value: object, schema: Mapping[str, Any]) -> Any:
    """The value without the nulls that the API server drops."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, Mapping):
        return {key: _pruned(item, _field_schema(schema, key) or {}) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item, schema.get("items") or {}) for item in value]
    return value


def _field_schema(schema: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    known: Mapping[str, Any] | None = schema.get("properties", {}).get(key)
    others = schema.get("additionalProperties")
    return known if known is not None else others if isinstance(others, Mapping) else None


def _value(value: object, schema: Mapping[str, Any], path: str) -> Iterator[Finding]:
    if schema.get("x-kubernetes-int-or-string"):
        if not _is_a(value, "integer") and not isinstance(value, str):
            yield _invalid(path, f"must be a whole number or text; found {kind_of(value)}", _quoting(value))
        elif isinstance(value, str):
            yield from _length(value, schema, path)
        return
    wanted = schema.get("type")
    if wanted and not _is_a(value, wanted):
        yield _wrong_type(value, wanted, schema, path)
        return
    if allowed := schema.get("enum"):
        yield from _allowed(value, allowed, path)
    if isinstance(value, str):
        yield from _length(value, schema, path)
    elif isinstance(value, Mapping):
        yield from _fields(value, schema, path)
    elif isinstance(value, list):
        yield from _items(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _bounds(value, schema, path)


def _fields(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[Finding]:
    yield from _at_most(len(value), schema, "Properties", "entries", path)
    for name in schema.get("required", ()):
        if name not in value:
            yield _invalid(f"{path}.{name}", "is missing: it is required")
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if "additionalProperties" not in schema:
        yield from _unknown(value, tuple(schema.get("properties", ())), f"{path}.")
    for key, item in value.items():
        if field := _field_schema(schema, key):
            yield from _value(item, field, f"{path}.{key}")


def _items(value: Sequence[Any], schema: Mapping[str, Any], path: str) -> Iterator[Finding]:
    yield from _at_most(len(value), schema, "Items", "items", path)
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen: dict[tuple[str, ...], int] = {}
    for index, item in enumerate(value):
        yield from _value(item, schema.get("items", {}), f"{path}[{index}]")
        if keys and isinstance(item, Mapping):
            identity = tuple(json.dumps(item.get(key), default=str) for key in keys)
            if (first := seen.setdefault(identity, index)) != index:
                named = " and ".join(f"{key} {shown(item.get(key))}" for key in keys)
                yield _invalid(
                    f"{path}[{index}]", f"{named} is there already, in item {first}", "remove one of the two"
                )


def _allowed(value: object, allowed: Sequence[Any], path: str) -> Iterator[Finding]:
    if value in allowed:
        return
    close = get_close_matches(str(value)[:64].lower(), {str(word).lower(): word for word in allowed}, n=1, cutoff=0.6)
    meant = next((word for word in allowed if close and str(word).lower() == close[0]), None)
    yield _invalid(
        path,
        f"must be one of {', '.join(str(word) for word in allowed)}; found {shown(value)}",
        f"did you mean {meant}?" if meant is not None else None,
    )


def _length(value: str, schema: Mapping[str, Any], path: str) -> Iterator[Finding]:
    yield from _at_most(len(value), schema, "Length", "characters", path)


def _at_most(size: int, schema: Mapping[str, Any], what: str, unit: str, path: str) -> Iterator[Finding]:
    if size > schema.get(f"max{what}", size):
        yield _invalid(path, f"must have at most {schema[f'max{what}']} {unit}; found {size}")
    least = schema.get(f"min{what}", 0)
    if size < least:
        found = f"found {size}" if size else "it is empty"
        yield _invalid(path, f"must have at least {least} {unit if least > 1 else unit.rstrip('s')}; {found}")


def _bounds(value: float, schema: Mapping[str, Any], path: str) -> Iterator[Finding]:
    if value < schema.get("minimum", value):
        yield _invalid(path, f"must be at least {schema['minimum']}; found {shown(value)}")
    elif value > schema.get("maximum", value):
        yield _invalid(path, f"must be at most {schema['maximum']}; found {shown(value)}")
    elif (bits := _INT_BITS.get(schema.get("format", ""))) and not -(2**bits) <= value < 2**bits:
        yield _invalid(path, f"must fit into {bits + 1} bits; found {shown(value)}")


# --- words


_TYPES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}


def _is_a(value: object, wanted: str) -> bool:
    match wanted:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping)


def _wrong_type(value: object, wanted: str, schema: Mapping[str, Any], path: str) -> Finding:
    message = f"must be {_TYPES.get(wanted, wanted)}; found {kind_of(value)}"
    if wanted == "string":  # what stands in its place may be a secret, so it is not shown
        if allowed := schema.get("enum"):
            message += f", expected one of {', '.join(map(str, allowed))}"
        return _invalid(path, message, _quoting(value))
    if isinstance(value, str):
        message += f" {shown(value)}"
        try:
            plain = json.loads(value.strip().lower())
        except (ValueError, RecursionError):
            plain = None
        if plain is not None and _is_a(plain, wanted) and isinstance(plain, bool | int | float):
            return _invalid(path, message, "write it without quotes")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        message += f", {shown(value)}"
    if wanted == "array" and value is not None and not isinstance(value, Mapping):
        return _invalid(path, message, "put it into a list: begin the line with '- '")
    return _invalid(path, message)


def _quoting(value: object) -> str | None:
    if isinstance(value, bool):
        return "put it into quotes: without them, YAML reads yes, no, on and off as true and false"
    return "put it into quotes" if isinstance(value, int | float) else None


def _unknown(value: Mapping[str, Any], known: Sequence[str], prefix: str) -> Iterator[Finding]:
    for key in value:
        if key not in known:
            meant = _meant(str(key), known)
            yield Finding(
                severity=Severity.ERROR,
                code=FindingCode.UNKNOWN_FIELD,
                field=f"{prefix}{key}"[:1024],
                message="there is no such field; the API server refuses it, or drops it without a word",
                suggestion=f"did you mean {meant}?" if meant else "remove it",
            )


def _meant(key: str, known: Iterable[str]) -> str | None:
    """The field that a misspelt one is closest to; n-gpu-layers and n_gpu_layers are close to gpuLayers."""
    by_bare = {_bare(name): name for name in known}
    bare = _bare(key)
    if bare in by_bare:
        return by_bare[bare]
    close = get_close_matches(bare, by_bare, n=1, cutoff=0.7)
    return by_bare[close[0]] if close else None


def _bare(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key[:64].lower())


def _likeness(found: str, expected: str) -> float:
    return SequenceMatcher(None, found[:64].lower(), expected.lower()).ratio()


def _invalid(field: str, message: str, suggestion: str | None = None) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code=FindingCode.INVALID_FIELD,
        field=field[:1024],
        message=message[:4096],
        suggestion=suggestion and suggestion[:1024],
    )


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "the boolean " + ("true" if value else "false")
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def shown(value: object) -> str:
    """A value in one short line."""
    if isinstance(value, Mapping | list):
        return kind_of(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"
