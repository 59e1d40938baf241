"""Example values for every field of a spec, and specs that have them: what the table of flags is made from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.spec import LlamaModelSpec
from referencegen.errors import IncompleteSourceError
from referencegen.schema import ITEM, Field, fields_of, leaves

__all__ = ["EXTRA_ARGS", "Example", "examples", "minimal_spec", "place", "spec_fields", "values_of"]

EXTRA_ARGS = "extraArgs"
_QUANTITIES = [{"cpu": "3"}, {"memory": "4Gi"}]

_VALUES: Mapping[str, Sequence[Any]] = {
    "servedModelName": ["clever"],
    "image": ["example.com/llama.cpp:server-b10434"],
    "gpu.resourceName": ["amd.com/gpu"],
    "resources.requests": _QUANTITIES,
    "resources.limits": _QUANTITIES,
    "gpu.memory": ["24Gi"],
    "engine.contextSize": ["auto", 8192],
    "engine.gpuLayers": ["auto", "all", 7],
    "engine.tensorSplit": [[3, 1]],
    "engine.promptCacheSize": ["2Gi", 0],
    "engine.cpuMoeLayers": ["all", 7],
    "engine.overrideTensors": [["blk[.]1[.]ffn_.*_exps=CPU"]],
    "speculative.gpuLayers": ["auto", "all", 7],
    "chatTemplate.preset": ["llama3"],
    "chatTemplate.inline": ["{{ messages[0].content }}"],
    "grammar.inline": ['root ::= "yes" | "no"'],
    "grammar.jsonSchema": ['{"type": "object"}'],
    "systemPrompt.inline": ["Be brief."],
    "requestDefaults.stop": [["END"]],
    "requestDefaults.temperature": [0.5],
    "requestDefaults.top_p": [0.5],
    "requestDefaults.top_k": [7],
    "requestDefaults.min_p": [0.5],
    "requestDefaults.max_tokens": [7],
    "requestDefaults.seed": [7],
    "requestDefaults.presence_penalty": [0.5],
    "requestDefaults.frequency_penalty": [0.5],
    "requestDefaults.repeat_penalty": [0.5],
    EXTRA_ARGS: [["--top-n-sigma", "1.5"]],
    "env": [[{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]],
    "podSecurityContext": [{"fsGroup": 1000}],
    "nodeSelector": [{"gpu": "l4"}],
    "tolerations": [[{"key": "nvidia.com/gpu", "operator": "Exists"}]],
    "affinity": [{"nodeAffinity": {}}],
    "topologySpreadConstraints": [
        [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]
    ],
    "priorityClassName": ["inference"],
    "runtimeClassName": ["nvidia"],
    "serviceAccountName": ["models"],
    "podLabels": [{"team": "search"}],
    "podAnnotations": [{"note": "none"}],
}
"""By field, for types that say too little to make a value from."""

_VALUES_BY_LAST_NAME: Mapping[str, Sequence[Any]] = {
    "claimName": ["others"],
    "path": ["other.gguf"],
    "sha256": ["0123456789abcdef" * 4],
    "name": ["texts"],
    "key": ["text"],
}
"""For fields of the types that are used in many places."""

_FILES = {
    "loraAdapters": "adapter.gguf",
    "draftModel": "draft.gguf",
    "chatTemplate": "chat.jinja",
    "grammar": "answer.gbnf",
}
"""Files on volumes, by the field that names them."""

_A_NUMBER = 7
_A_FRACTION = 0.5


@dataclass(frozen=True, kw_only=True)
class Example:
    """A field with a value.

    Attributes:
        field: name of the field under spec.
        value: what it is set to; never its default.
        without: a spec that has what the field needs around it, and not the field.
        spec: the same with the field.
    """

    field: str
    value: Any
    without: Mapping[str, Any]
    spec: Mapping[str, Any]


def spec_fields() -> tuple[Field, ...]:
    """Every field of a spec that has no fields of its own."""
    return tuple(leaves(fields_of(LlamaModelSpec)))


def values_of(field: Field) -> Sequence[Any]:
    """Values for a field, none of them its default.

    Raises:
        IncompleteSourceError: its type does not say enough, and no values are given here.
    """
    if found := _VALUES.get(field.name) or _VALUES_BY_LAST_NAME.get(field.path[-1]):
        return found
    schema = field.schema
    if "enum" in schema:
        return list(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return [True] if schema.get("default") is False else [True, False]
        case "integer":
            return [min(max(_A_NUMBER, schema.get("minimum", 0)), schema.get("maximum", _A_NUMBER))]
        case "number":
            return [min(max(_A_FRACTION, schema.get("minimum", 0)), schema.get("maximum", _A_FRACTION))]
    raise IncompleteSourceError(
        f"spec.{field.name}: no example value can be made from its type; give some in"
        " hack/reference/referencegen/examples.py, _VALUES"
    )


def examples(field: Field) -> tuple[Example, ...]:
    """The field with each of its values."""
    without = minimal_spec()
    _make_room(without, field)
    if field.choice:
        _drop(without, field.choice)
    found = []
    for value in values_of(field):
        spec = minimal_spec()
        place(spec, field, value)
        found.append(Example(field=field.name, value=value, without=without, spec=spec))
    return tuple(found)


def minimal_spec() -> dict[str, Any]:
    """A spec with what must be there and nothing else."""
    return {"model": {"pvc": {"claimName": "models", "path": "model.gguf"}}}


def place(spec: dict[str, Any], field: Field, value: Any) -> None:
    """Sets a field, with what it needs around it. Of a list of objects, that of the first."""
    _make_room(spec, field)
    _parent(spec, field.path)[field.path[-1]] = copy.deepcopy(value)


def _make_room(spec: dict[str, Any], field: Field) -> None:
    """Makes the objects above a field, each with what it must have."""
    above = fields_of(LlamaModelSpec)
    parent = spec
    for name in field.path[:-1]:
        found = next(each for each in above if each.path[-1] == name)
        key = name.removesuffix(ITEM)
        if key not in parent:
            parent[key] = [_required(found)] if name.endswith(ITEM) else _required(found)
        parent = parent[key][0] if name.endswith(ITEM) else parent[key]
        above = found.children


def _required(field: Field) -> dict[str, Any]:
    """An object with the fields that it must have."""
    found: dict[str, Any] = {}
    for child in field.children:
        if child.required:
            key = child.path[-1].removesuffix(ITEM)
            found[key] = _required(child) if child.children else _first_value(child)
    return found


def _first_value(field: Field) -> str:
    """The value that a field has while another one is looked at."""
    match field.path[-1]:
        case "claimName":
            return "models"
        case "path":
            owner = field.path[-3].removesuffix(ITEM)
            return _FILES.get(owner, f"{owner}.gguf")
    return "first"


def _parent(spec: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    parent = spec
    for name in path[:-1]:
        parent = parent[name.removesuffix(ITEM)][0] if name.endswith(ITEM) else parent[name]
    return parent


def _drop(spec: dict[str, Any], path: Sequence[str]) -> None:
    _parent(spec, path).pop(path[-1], None)
