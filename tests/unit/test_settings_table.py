"""The table of settings: which field is which flag in which build, and that no field is without effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from referencegen.effects import builds_from_to, effect_table, render
from referencegen.errors import IncompleteSourceError
from referencegen.examples import examples, minimal_spec, spec_fields, values_of
from referencegen.schema import Field, fields_of, walk

from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.engine.catalogue import Catalogue, FlagState
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.settings import SETTINGS
from llamamodel_operator.core.engine.values import expected_value
from support.generated_specs import full_spec, generate_specs

BUILDS = shipped_catalogues().builds

NOT_FOR_THE_COMMAND_LINE = {
    **{
        f"{of}pvc.sha256": "the inspection"
        for of in ("model.", "projector.", "loraAdapters[].", "speculative.draftModel.")
    },
    "replicas": "how many pods",
    "requestDefaults.stop": "llama-server has no flag for it; it holds for requests through the gateway",
    "suspend": "whether there are pods",
    "apiKeySecretRef.name": "what is mounted where --api-key-file points to",
    "apiKeySecretRef.key": "what is mounted where --api-key-file points to",
    "startupTimeoutSec": "the start-up probe",
    "terminationGracePeriodSeconds": "the pod",
    "image": "the container",
    "imagePullPolicy": "the container",
    "imagePullSecrets[].name": "the pod",
    "gpu.count": "the container's limits; which layers go to the GPU follows from spec.gpu being there",
    "gpu.memory": "what the estimate is compared with",
    "gpu.resourceName": "the container's limits, and the default image",
    "resources.requests": "the container; what the server may use follows from the limits",
    "engine.build": "chooses the catalogue",
    "loraAdapters[].name": "the status and the gateway; the server knows adapters by number",
    "systemPrompt.inline": "goes into the file of the chat template",
    "systemPrompt.configMapKeyRef.name": "goes into the file of the chat template",
    "systemPrompt.configMapKeyRef.key": "goes into the file of the chat template",
    "env": "the container",
    "memoryPolicy": "whether there are pods",
    "requireOffload": "the status",
    "podSecurityContext": "the pod",
    "nodeSelector": "the pod",
    "tolerations": "the pod",
    "affinity": "the pod",
    "topologySpreadConstraints": "the pod",
    "priorityClassName": "the pod",
    "runtimeClassName": "the pod",
    "serviceAccountName": "the pod",
    "podLabels": "the pod",
    "podAnnotations": "the pod",
}
"""By field: where it takes effect instead."""

OPERATOR_ITSELF = {"fit", "host", "port"}
"""Settings that are no fields."""


def test_every_field_reaches_the_command_line_of_some_build_or_takes_effect_elsewhere() -> None:
    silent = {field.name for field in spec_fields()} - set(effect_table())
    assert silent == set(NOT_FOR_THE_COMMAND_LINE), (
        "a field that reaches no argv needs a row in core/engine/settings.py, or a line in NOT_FOR_THE_COMMAND_LINE"
    )


def test_every_setting_belongs_to_a_field() -> None:
    names = {field.name.replace("[]", "") for field in walk(fields_of(LlamaModelSpec))}
    said = {field for setting in SETTINGS for field in (setting.field, *setting.also)}
    assert said - names == OPERATOR_ITSELF


def test_no_field_has_two_settings() -> None:
    fields = [setting.field for setting in SETTINGS]
    assert sorted(fields) == sorted(set(fields))


def test_a_field_whose_type_says_too_little_needs_an_example() -> None:
    field = Field(path=("engine", "new"), schema={"type": "string"}, required=False, choice=None)
    with pytest.raises(IncompleteSourceError, match=r"spec\.engine\.new: no example value"):
        values_of(field)


def test_the_flags_of_each_field_are_those_in_the_golden_file(golden: Callable[[str, object], None]) -> None:
    table = {
        field: [
            {
                "values": row.values,
                "flags": {builds_from_to(first, last): effect.phrases() for first, last, effect in row.effects},
            }
            for row in rows
        ]
        for field, rows in effect_table().items()
    }
    golden("field_flags", table)


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_is_told_nothing_that_its_catalogue_does_not_have(build: int) -> None:
    catalogue = shipped_catalogues().get(build)
    specs = [minimal_spec(), full_spec(), *(e.spec for field in spec_fields() for e in examples(field))]
    assert [(spec, wrong) for spec in specs for wrong in _wrong(spec, catalogue)] == []


@pytest.mark.parametrize("build", BUILDS)
def test_any_valid_spec_makes_a_command_line_that_the_catalogue_takes(build: int) -> None:
    catalogue = shipped_catalogues().get(build)
    specs = generate_specs(60, seed=build).specs
    assert [(spec, wrong) for spec in specs for wrong in _wrong(spec, catalogue)] == []


def _wrong(spec: Mapping[str, Any], catalogue: Catalogue) -> Iterator[str]:
    """What a catalogue has against the words of a spec, read as llama-server does: by the arity of each flag."""
    extra = len(spec.get("extraArgs", ()))
    words = list(render(spec, catalogue).words)
    words = words[: len(words) - extra]  # the user's own are passed on whatever they are
    while words:
        spelling = words.pop(0)
        flag = catalogue.find(spelling)
        if flag is None or flag.state is FlagState.REMOVED:
            yield f"{spelling} is unknown or removed"
            return
        if flag.state is FlagState.WITHOUT_EFFECT:
            yield f"{spelling} does nothing"
        for position in range(0 if spelling in flag.negations else flag.arity):
            if not words:
                yield f"{spelling} lacks a value"
                return
            value = words.pop(0)
            if expected := expected_value(value, flag, position=position):
                yield f"{spelling} {value}: expected {expected}"
