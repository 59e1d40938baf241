"""What the API server would say of a manifest is said without one: by field, with what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.crd import custom_resource_definition
from llamamodel_operator.api.findings import FindingCode
from llamamodel_operator.core.schema_check import check_defaults, check_schema, is_meant_as_model, without_nulls

PVC = {"pvc": {"claimName": "models", "path": "m.gguf"}}


def a_manifest(metadata: Any = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "llamamodel.dev/v1alpha1",
        "kind": "LlamaModel",
        "metadata": {"name": "qwen3"} if metadata is None else metadata,
        "spec": {"model": PVC, **spec},
    }


def told(raw: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(found.field, found.message, found.suggestion or "") for found in check_schema(raw)]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"engine": {"gpuLayers": "all", "promptCacheSize": "2Gi", "tensorSplit": [3, 1.5]}},
        {"engine": {"contextSize": 8192.0}},
        {"replicas": None, "gpu": None, "engine": None, "nodeSelector": {"zone": None}},
        {"env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        {"tolerations": [{"operator": "Exists"}], "affinity": {}, "podSecurityContext": {"fsGroup": 1000}},
        {"resources": {"limits": {"cpu": 2, "memory": "4Gi"}}},
        {"requestDefaults": {"temperature": 0.2, "seed": None}},
        {"grammar": {"jsonSchema": "{}"}},
        {"podLabels": {"team": "a"}, "extraArgs": ["--top-n-sigma", "1.5"]},
    ],
)
def test_what_the_api_server_takes_is_fine(spec: dict[str, Any]) -> None:
    assert told(a_manifest(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message", "suggestion"),
    [
        ({"ctxSize": 1}, "spec.ctxSize", "there is no such field", "remove it"),
        ({"chattemplate": {}}, "spec.chattemplate", "there is no such field", "did you mean chatTemplate?"),
        ({"engine": {"gpu_layers": 1}}, "spec.engine.gpu_layers", "there is no such", "did you mean gpuLayers?"),
        ({"engine": {"contextsize": 1}}, "spec.engine.contextsize", "there is no", "did you mean contextSize?"),
        (
            {"tolerations": [{"key": "gpu", "effct": "NoSchedule"}]},
            "spec.tolerations[0].effct",
            "no such field",
            "did you mean effect?",
        ),
        (
            {"tolerations": [{"effect": "NoWay"}]},
            "spec.tolerations[0].effect",
            'must be one of NoExecute, NoSchedule, PreferNoSchedule; found "NoWay"',
            "",
        ),
        (
            {"tolerations": [{"effect": "Noschedule"}]},
            "spec.tolerations[0].effect",
            'found "Noschedule"',
            "did you mean NoSchedule?",
        ),
        ({"podSecurityContext": {"runAsUser": "root"}}, "spec.podSecurityContext.runAsUser", 'found text "root"', ""),
        (
            {"podSecurityContext": {"runAsUser": "1000"}},
            "spec.podSecurityContext.runAsUser",
            'must be a whole number; found text "1000"',
            "write it without quotes",
        ),
        ({"env": [{"value": "x"}]}, "spec.env[0].name", "is missing: it is required", ""),
        ({"env": [{"name": "A", "value": 5}]}, "spec.env[0].value", "must be text; found a number", "into quotes"),
        ({"env": [{"name": "A", "value": True}]}, "spec.env[0].value", "found the boolean true", "YAML reads yes"),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]},
            "spec.env[0].valueFrom.secretKeyRef.key",
            "is missing",
            "",
        ),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env[1]", 'name "A" is there already, in item 0', "remove one"),
        ({"env": [None]}, "spec.env[0]", "must be an object; found nothing", ""),
        ({"replicas": "2"}, "spec.replicas", 'must be a whole number; found text "2"', "write it without quotes"),
        ({"replicas": 1.5}, "spec.replicas", "must be a whole number; found a number, 1.5", ""),
        ({"replicas": True}, "spec.replicas", "must be a whole number; found the boolean true", ""),
        ({"replicas": -1}, "spec.replicas", "must be at least 0; found -1", ""),
        ({"replicas": 1001}, "spec.replicas", "must be at most 1000; found 1001", ""),
        ({"suspend": "yes"}, "spec.suspend", 'must be true or false; found text "yes"', ""),
        (
            {"engine": {"flashAttention": True}},
            "spec.engine.flashAttention",
            "found the boolean true, expected one of auto, enabled, disabled",
            "put it into quotes",
        ),
        ({"engine": "fast"}, "spec.engine", 'must be an object; found text "fast"', ""),
        ({"engine": {"gpuLayers": 1.5}}, "spec.engine.gpuLayers", "must be a whole number or text; found a number", ""),
        ({"extraArgs": "--verbose"}, "spec.extraArgs", "must be a list; found text", "begin the line with '- '"),
        ({"extraArgs": ["-c", 8192]}, "spec.extraArgs[1]", "must be text; found a number", "put it into quotes"),
        ({"image": ""}, "spec.image", "must have at least 1 character; it is empty", ""),
        ({"image": "x" * 1025}, "spec.image", "must have at most 1024 characters; found 1025", ""),
        ({"nodeSelector": {"gpu": True}}, "spec.nodeSelector.gpu", "must be text; found the boolean true", "quotes"),
        ({"model": {"pvc": {"claimName": "models"}}}, "spec.model.pvc.path", "is missing", ""),
        ({"model": None}, "spec.model", "is missing", ""),
        ({"resources": {"limits": {"cpu": 0.5}}}, "spec.resources.limits.cpu", "must be a whole number or text", ""),
    ],
)
def test_a_mistake_is_named_by_field_with_what_was_found_and_what_to_do(
    spec: dict[str, Any], field: str, message: str, suggestion: str
) -> None:
    ((found_field, found_message, found_suggestion),) = told(a_manifest(**spec))

    assert found_field == field
    assert message in found_message
    assert suggestion in found_suggestion


@pytest.mark.parametrize(
    ("metadata", "field", "message", "suggestion"),
    [
        ({}, "metadata.name", "is missing", "give the LlamaModel a name"),
        ({"name": "Qwen3_8B"}, "metadata.name", '"Qwen3_8B" is no name', "write qwen3-8b"),
        ({"name": "a" * 254}, "metadata.name", "at most 253 characters; found 254", ""),
        ({"name": 7}, "metadata.name", "must be text; found a number", "put it into quotes"),
        ({"name": ""}, "metadata.name", '"" is no name', ""),
        ({"name": "a", "namespace": "a.b"}, "metadata.namespace", '"a.b" is no name', "write a-b"),
        ({"generateName": "Q-"}, "metadata.generateName", "is no name", ""),
        ({"name": "a", "lables": {}}, "metadata.lables", "no such field", "did you mean labels?"),
        ({"name": "a", "labels": {"team": "a b"}}, "metadata.labels.team", "is no label value", "annotations"),
        ({"name": "a", "labels": {"a/b/c": "x"}}, "metadata.labels", '"a/b/c" is no key', ""),
        ({"name": "a", "annotations": {"n": 1}}, "metadata.annotations.n", "must be text", "put it into quotes"),
        ("qwen3", "metadata", "must be an object; found text", ""),
        (["a"], "metadata", "must be an object; found a list", ""),
    ],
)
def test_metadata_is_checked_as_the_api_server_does(metadata: Any, field: str, message: str, suggestion: str) -> None:
    ((found_field, found_message, found_suggestion),) = told(a_manifest(metadata))

    assert found_field == field
    assert message in found_message
    assert suggestion in found_suggestion


def test_a_name_that_the_api_server_makes_up_is_enough() -> None:
    assert told(a_manifest({"generateName": "qwen3-"})) == []


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            {"apiVersion": "llamamodel.dev/v1"},
            "apiVersion",
            'must be llamamodel.dev/v1alpha1; found "llamamodel.dev/v1"',
        ),
        ({"kind": "Llamamodel"}, "kind", 'must be LlamaModel; found "Llamamodel"'),
        ({"apiVersion": None}, "apiVersion", "it is missing"),
        ({"specs": {}}, "specs", "there is no such field"),
        ({"spec": None}, "spec", "is missing"),
        ({"spec": []}, "spec", "must be an object; found a list"),
    ],
)
def test_the_object_itself_is_checked(change: dict[str, Any], field: str, message: str) -> None:
    ((found_field, found_message, _),) = told({**a_manifest(), **change})

    assert found_field == field
    assert message in found_message


@pytest.mark.parametrize(
    ("version", "kind", "is_one"),
    [
        ("llamamodel.dev/v1alpha1", "LlamaModel", True),
        ("llamamodel.dev/v1", "LlamaModel", True),
        ("llamamodel.dev/v1alpha1", "Model", True),
        ("llamamodels.dev/v1alpha1", "LlamaModel", True),
        ("llamamodel.dev/v1alpha1", None, True),
        (None, "LlamaModel", True),
        ("v1", "LlamaModel", True),
        ("v1", "LLamaModle", True),
        ("other.example.com/v1", "LlamaModel", False),
        ("v1", "ConfigMap", False),
        ("apps/v1", "Deployment", False),
        (7, ["LlamaModel"], False),
    ],
)
def test_a_misspelt_kind_or_group_is_still_meant_as_a_model(version: Any, kind: Any, is_one: bool) -> None:
    assert is_meant_as_model({"apiVersion": version, "kind": kind}) is is_one


def test_nulls_are_left_out_as_in_the_api_server_but_not_where_they_mean_something() -> None:
    raw = a_manifest(
        replicas=None,
        engine={"threads": None, "contextSize": 1},
        requestDefaults={"seed": None},
        extraArgs=[None],
    )

    assert without_nulls(raw)["spec"] == {
        "model": PVC,
        "engine": {"contextSize": 1},
        "requestDefaults": {},
        "extraArgs": [None],
    }


def test_defaults_need_no_model_and_their_fields_are_named_by_their_own_path() -> None:
    found = check_defaults({"engine": {"threds": 4}, "endpoints": {"metrics": "no"}}, path="modelDefaults")

    assert [(f.field, f.code) for f in found] == [
        ("modelDefaults.engine.threds", FindingCode.UNKNOWN_FIELD),
        ("modelDefaults.endpoints.metrics", FindingCode.INVALID_FIELD),
    ]


def test_what_should_be_text_is_never_shown_as_it_may_be_a_secret() -> None:
    assert not any("73519" in str(line) for line in told(a_manifest(env=[{"name": "TOKEN", "value": 73519}])))


def test_findings_are_bounded_in_number_and_size() -> None:
    found = check_schema(a_manifest(**{f"x{number}" * 400: 1 for number in range(1000)}))

    assert len(found) == 100


def _keywords(schema: Mapping[str, Any]) -> Iterator[str]:
    for key, value in schema.items():
        yield key
        if key == "properties":
            for field in value.values():
                yield from _keywords(field)
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            yield from _keywords(value)


def test_every_keyword_of_the_schema_is_one_that_is_checked_here_or_by_the_types() -> None:
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    assert set(_keywords(schema["properties"]["spec"])) <= {
        "additionalProperties",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-preserve-unknown-fields",
        # these check nothing by themselves
        "default",
        "description",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        # CEL: each rule has its twin in the types
        "x-kubernetes-validations",
    }


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["apiVersion", "kind", "metadata", "spec", "x"]), ANYTHING))
def test_no_object_is_too_odd(raw: dict[str, Any]) -> None:
    check_schema(raw)
    is_meant_as_model(raw)
    without_nulls(raw)


@given(st.data())
def test_no_field_is_too_odd(data: st.DataObject) -> None:
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = st.dictionaries(st.sampled_from(sorted(schema["properties"])), ANYTHING, max_size=4)
    check_schema(a_manifest(data.draw(ANYTHING), **data.draw(fields)))
