"""Specs made by chance, the same ones every time: each field now and then, with any value that it may have."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import ValidationError
from referencegen.examples import minimal_spec, place, spec_fields, values_of
from referencegen.schema import Field

from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = ["GeneratedSpecs", "full_spec", "generate_specs"]

_SHARE = 0.3
"""Of the fields that a spec is given."""

_ODD: Mapping[str, list[Any]] = {
    "path": [
        "deep/er/model.gguf",
        "with spaces.gguf",
        "$(HOME).gguf",
        "$$.gguf",
        "-m.gguf",
        "günther.gguf",
        "a=b.gguf",
    ],
    "servedModelName": ["org/name:tag", "--metrics", "$(PORT)", "ü", '"quoted"'],
    "engine.overrideTensors": [["exps=CPU"], ["blk[.][0-3][.].*=CPU", "output=CPU"]],
    "requestDefaults.temperature": [0, 2, 1e-5],
    "requestDefaults.top_p": [0, 1],
    "requestDefaults.top_k": [0, 100_000],
    "requestDefaults.max_tokens": [-1, 1, 1_000_000],
    "requestDefaults.seed": [-1, 0, (1 << 31) - 1],
    "requestDefaults.presence_penalty": [-2, 2],
    "requestDefaults.frequency_penalty": [-2, 2.0],
    "requestDefaults.repeat_penalty": [1, 1.000001],
    "engine.promptCacheSize": ["0", "1", "500m", "8Gi", 1 << 30],
    "resources.limits": [{"cpu": "250m", "memory": "1G"}, {"cpu": 64}],
}
"""Values besides the examples, by name or last name."""


@dataclass(frozen=True, kw_only=True)
class GeneratedSpecs:
    """Attributes:
    specs: all valid.
    uses: in how many of them each field was given a value.
    """

    specs: tuple[Mapping[str, Any], ...]
    uses: Counter[str]


def generate_specs(number: int, *, seed: int) -> GeneratedSpecs:
    """So many specs. The same number and seed always give the same."""
    random = Random(seed)  # noqa: S311
    fields = list(spec_fields())
    specs, uses = [], Counter({field.name: 0 for field in fields})
    for _ in range(number):
        random.shuffle(fields)
        spec = minimal_spec()
        for field in fields:
            if random.random() < _SHARE and (with_it := _with_field(spec, field, _value(field, random))):
                spec = with_it
                uses[field.name] += 1
        specs.append(_with_two_adapters(spec) if random.random() < _SHARE else spec)
    return GeneratedSpecs(specs=tuple(specs), uses=uses)


def full_spec() -> Mapping[str, Any]:
    """A spec with every field; of those that exclude each other, the first."""
    spec = minimal_spec()
    for field in spec_fields():
        spec = _with_field(spec, field, values_of(field)[0]) or spec
    return _with_two_adapters(spec)


def _with_two_adapters(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with a second adapter where it has one: builds differ in how they are told several."""
    second = {"name": "second", "pvc": {"claimName": "models", "path": "second.gguf"}, "scale": 0.25}
    adapters = spec.get("loraAdapters")
    return {**spec, **({"loraAdapters": [*adapters, second]} if adapters else {})}


def _with_field(spec: Mapping[str, Any], field: Field, value: Any) -> dict[str, Any] | None:
    """The spec with the field; None where that would not be valid."""
    changed = copy.deepcopy(dict(spec))
    place(changed, field, value)
    try:
        LlamaModelSpec.model_validate(changed)
    except ValidationError:
        return None
    return changed


def _value(field: Field, random: Random) -> Any:
    schema = field.schema
    choices = [*values_of(field), *_ODD.get(field.name, ()), *_ODD.get(field.path[-1], ())]
    match schema.get("type"):
        case "integer":
            low, high = schema["minimum"], schema["maximum"]
            choices += [low, high, low + round(math.exp(random.uniform(0, math.log(high - low + 1)))) - 1]
        case "number":
            choices += [schema["minimum"], schema["maximum"], random.uniform(schema["minimum"], schema["maximum"])]
        case "array" if schema["items"].get("type") == "number":
            choices.append([round(random.uniform(0, 10), 3) for _ in range(random.randint(1, schema["maxItems"]))])
    return random.choice(choices)
