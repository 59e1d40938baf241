"""A stored LlamaModel that the types refuse: which field, what was found, what is expected."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel

from .builders import ModelBuilder, a_model


def refusal_of(model: ModelBuilder) -> str:
    with pytest.raises(InvalidLlamaModelError) as refusal:
        model.build()
    return str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"model": {}}, "spec.model.pvc: Field required"),
        ({"model": {"pvc": {"path": "a.gguf"}}}, "spec.model.pvc.claimName: Field required"),
        (
            {"startupTimeoutSec": 0},
            "spec.startupTimeoutSec: Input should be greater than or equal to 1 (found 0)",
        ),
        (
            {"startupTimeoutSec": 86_401},
            "spec.startupTimeoutSec: Input should be less than or equal to 86400 (found 86401)",
        ),
        ({"replicas": -1}, "spec.replicas: Input should be greater than or equal to 0 (found -1)"),
        (
            {"replicas": "two"},
            "spec.replicas: Input should be a valid integer, unable to parse string as an integer (found 'two')",
        ),
        (
            {"imagePullPolicy": "Sometimes"},
            "spec.imagePullPolicy: Input should be 'Always', 'IfNotPresent' or 'Never' (found 'Sometimes')",
        ),
        ({"gpu": {"count": 0}}, "spec.gpu.count: Input should be greater than or equal to 1 (found 0)"),
        (
            {"engine": {"contextSize": -1}},
            "spec.engine.contextSize: must be auto, or a number of tokens from 0 to 1073741824; found -1",
        ),
        (
            {"engine": {"cacheTypeV": "q8_0", "flashAttention": "disabled"}},
            "spec.engine: a quantized cacheTypeV needs flash attention: set flashAttention to enabled or auto,"
            " or cacheTypeV to f16, bf16 or f32",
        ),
        (
            {"engine": {"batchSize": 8, "microBatchSize": 9}},
            "spec.engine: microBatchSize must not be larger than batchSize",
        ),
        (
            {"resources": {"limits": {"memory": "4 GB"}}},
            "spec.resources.limits.memory: '4 GB' is not a quantity:"
            " write a number and a unit without a space, such as 4Gi or 500m",
        ),
        (
            {"podLabels": {"llamamodel.dev/model": "other"}},
            "spec.podLabels: the operator sets llamamodel.dev/model itself: choose another label",
        ),
        (
            {"podLabels": {"app.kubernetes.io/name": "other"}},
            "spec.podLabels: the operator sets app.kubernetes.io/name itself: choose another label",
        ),
    ],
)
def test_the_sentence_names_the_field_what_was_found_and_what_is_expected(spec: dict[str, Any], sentence: str) -> None:
    assert refusal_of(a_model().with_spec(**spec)) == sentence


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/etc/passwd", "must be relative to the root of the volume: remove the leading /"),
        ("../other/model.gguf", "must not contain '..': name the file from the root of the volume"),
        ("a/../../b.gguf", "must not contain '..'"),
        ("a/..", "must not contain '..'"),
        ("folder/", "must name a file, not a folder"),
    ],
)
def test_a_path_that_leaves_the_volume_or_names_no_file_is_refused(path: str, complaint: str) -> None:
    sentence = refusal_of(a_model().reading("models", path))
    assert sentence.startswith(f"spec.model.pvc.path: {path!r} ")
    assert complaint in sentence


@pytest.mark.parametrize("path", ["a..b.gguf", "..a/b.gguf", "a/b...gguf", ".hidden/model.gguf"])
def test_dots_inside_a_name_are_no_way_out(path: str) -> None:
    assert a_model().reading("models", path).build().spec.model.pvc.path == path


def test_control_characters_in_a_path_are_refused_by_the_types_too() -> None:
    refusal_of(a_model().reading("models", "a\nb.gguf"))


def test_gpus_in_resources_beside_spec_gpu_are_refused_by_the_types_too() -> None:
    assert "spec.gpu" in refusal_of(a_model().with_gpu(2).with_limits(**{"nvidia.com/gpu": 4}))


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (a_model().with_engine(gpuLayers="many"), "spec.engine.gpuLayers: "),
        (a_model().with_engine(gpuLayers=-1), "spec.engine.gpuLayers: "),
        (a_model().with_limits(cpu=0.5), "spec.resources.limits.cpu: "),
    ],
)
def test_a_field_with_several_types_is_named_as_in_the_manifest_and_once(model: ModelBuilder, field: str) -> None:
    sentence = refusal_of(model)
    assert sentence.startswith(field)
    assert sentence.count("spec.") == 1


def test_all_faults_are_told_at_once() -> None:
    sentence = refusal_of(a_model().with_spec(replicas=-1, startupTimeoutSec=0))
    assert "spec.replicas: " in sentence
    assert "; spec.startupTimeoutSec: " in sentence


def test_the_field_is_named_as_in_the_manifest() -> None:
    assert re.match(r"spec\.engine\.microBatchSize: ", refusal_of(a_model().with_engine(microBatchSize=0)))


@pytest.mark.parametrize("spec", [None, {}])
def test_a_model_without_a_spec_is_refused_with_a_sentence(spec: object) -> None:
    with pytest.raises(InvalidLlamaModelError, match=r"^spec\.model: Field required$"):
        LlamaModel.parse({**a_model().raw(), "spec": spec})


def test_an_unknown_field_is_ignored_because_the_api_server_judges_those() -> None:
    assert a_model().with_spec(futureField=1).build() == a_model().build()


def test_the_smallest_model_has_the_documented_defaults() -> None:
    spec = a_model().build().spec
    assert (spec.replicas, spec.suspend, spec.settled_startup_timeout_sec) == (1, False, 300)
    assert spec.settled_task == "generate"
    assert spec.gpu is None


def test_a_gpu_without_details_is_one_of_nvidia() -> None:
    gpu = a_model().with_spec(gpu={}).build().spec.gpu
    assert gpu is not None
    assert (gpu.count, gpu.resource_name) == (1, "nvidia.com/gpu")


def test_the_served_name_is_the_name_unless_another_is_given() -> None:
    assert a_model().named("qwen2.5-7b").build().served_name == "qwen2.5-7b"
    assert a_model().with_spec(servedModelName="q").build().served_name == "q"
