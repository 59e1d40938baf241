"""What is said about a manifest before anything runs, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.policy import ArgumentPolicy
from llamamodel_operator.core.review import nobody_looks, review_manifest
from llamamodel_operator.core.text.template import TemplateReport

from .builders import CONFIGURATION, ModelBuilder, a_model
from .gguf_models import a_node, an_8b, inspected

B11669 = "example.com/llama.cpp:server-cuda-b11669"
B6957 = "example.com/llama.cpp:server-cuda-b6957"


def review(model: ModelBuilder | Mapping[str, Any], **changes: Any) -> tuple[Finding, ...]:
    raw = model.raw() if isinstance(model, ModelBuilder) else model
    return review_manifest(
        raw,
        configuration=replace(CONFIGURATION, **changes),
        look_up=nobody_looks,
        examine=lambda _: TemplateReport(),
    ).findings


def codes(findings: tuple[Finding, ...]) -> list[tuple[Severity, FindingCode, str]]:
    return [(finding.severity, finding.code, finding.field) for finding in findings]


def with_arguments(image: str, *words: str) -> ModelBuilder:
    return a_model().with_spec(image=image, extraArgs=list(words))


def test_what_does_not_fit_is_a_warning_where_files_and_nodes_are_known() -> None:
    found = review_manifest(
        a_model().with_gpu().with_engine(contextSize=8192, gpuLayers="all").raw(),
        configuration=CONFIGURATION,
        look_up=nobody_looks,
        examine=lambda _: TemplateReport(),
        know=lambda _: (inspected(an_8b()), (a_node(memory_mib=8192),)),
    ).findings
    (finding,) = [finding for finding in found if finding.code == FindingCode.MEMORY_TOO_SMALL]
    assert (finding.severity, finding.field) == ("warning", "spec.gpu")
    assert "needs 9.2Gi per GPU" in finding.message


def test_a_misspelt_flag_is_a_warning_with_the_flag_that_was_meant() -> None:
    (finding,) = review(with_arguments(B11669, "--flash-atten", "on"))
    assert (finding.severity, finding.code) == ("warning", "UnknownFlag")
    assert "--flash-attn" in f"{finding.message} {finding.suggestion}"
    assert "will not start" in finding.message or "refuses" in finding.message


def test_with_a_strict_policy_it_is_an_error() -> None:
    (finding,) = review(with_arguments(B11669, "--flash-atten", "on"), policy=ArgumentPolicy(strict=True))
    assert finding.severity == "error"


def test_a_removed_flag_is_an_error_that_names_its_replacement_and_fine_on_the_build_that_has_it() -> None:
    (finding,) = review(with_arguments(B11669, "--draft-max", "8"))
    assert (finding.severity, finding.code) == ("error", "RemovedFlag")
    assert "--spec-draft-n-max" in f"{finding.message} {finding.suggestion}"
    assert not [f for f in review(with_arguments(B6957, "--draft-max", "8")) if f.severity == "error"]


def test_a_value_of_the_wrong_type_is_an_error() -> None:
    assert (Severity.ERROR, FindingCode.INVALID_FLAG_VALUE, "spec.extraArgs[1]") in codes(
        review(with_arguments(B11669, "--top-k", "many"))
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--port", "1"), "ManagedFlag"),
        (("--ctx-size", "4096"), "DuplicateSetting"),
        (("-c", "4096"), "DuplicateSetting"),
        (("--log-file", "/etc/x"), "ForbiddenFlag"),
        (("--api-key", "secret"), "PlainSecret"),
    ],
)
def test_what_is_said_about_a_word(words: tuple[str, ...], code: str) -> None:
    found = review(with_arguments(B11669, *words).with_engine(contextSize=2048))
    assert code in [str(finding.code) for finding in found]


def test_a_secret_is_masked_in_the_command_line() -> None:
    assert "hush" not in str(with_arguments(B11669, "--api-key", "hush").plan().command)


def test_a_variable_of_the_operator_is_its_own() -> None:
    found = review(a_model().with_spec(env=[{"name": "LLAMAMODEL_LORA_SCALE_0", "value": "2"}]))
    assert (Severity.ERROR, FindingCode.MANAGED_FLAG, "spec.env[0].name") in codes(found)


def test_settings_that_do_not_go_together_are_told() -> None:
    found = review(a_model().with_spec(image=B11669, extraArgs=["--cache-type-v", "q8_0", "--flash-attn", "off"]))
    assert "ConflictingSettings" in [str(finding.code) for finding in found]


@pytest.mark.parametrize(
    ("image", "build", "code"),
    [
        ("example.com/llama.cpp:server", None, "BuildUnknown"),
        ("example.com/llama.cpp:server", 10434, None),
        (B11669, None, None),
        (B11669, 10434, "BuildMismatch"),
    ],
)
def test_which_build_will_run(image: str, build: int | None, code: str | None) -> None:
    model = a_model().with_spec(image=image)
    found = review(model.with_engine(build=build) if build else model)
    assert [str(finding.code) for finding in found] == ([code] if code else [])


def test_a_server_that_says_another_build_than_the_tag_is_a_finding() -> None:
    status = {"engine": {"image": B11669, "build": "b10434"}}
    assert [str(finding.code) for finding in review(a_model().with_spec(image=B11669).with_status(status))] == [
        "BuildMismatch"
    ]


def test_what_the_types_refuse_is_told_by_field() -> None:
    found = review(a_model().with_engine(contextSize=-1, gpuLayers="many"))
    assert [(finding.code, finding.field) for finding in found] == [
        ("InvalidField", "spec.engine.contextSize"),
        ("InvalidField", "spec.engine.gpuLayers"),
    ]


def test_a_field_that_the_build_cannot_honour_is_a_finding_and_no_argument() -> None:
    model = a_model().with_spec(image="example.com/llama.cpp:b5990").with_engine(promptCacheSize="1Gi")
    assert codes(review(model)) == [(Severity.WARNING, FindingCode.FIELD_UNSUPPORTED, "spec.engine.promptCacheSize")]
    assert "--cache-ram" not in model.arguments()


def test_errors_come_first() -> None:
    found = review(with_arguments(B11669, "--unheard-of", "--port", "1"))
    assert [str(finding.severity) for finding in found] == ["error", "warning"]


def test_defaults_hold_where_the_model_says_nothing() -> None:
    defaults = {"engine": {"contBatching": False, "threads": 2}, "endpoints": {"metrics": False}}
    raw = a_model().with_engine(contBatching=True).raw()
    spec = LlamaModel.parse(raw, defaults=defaults).spec
    assert (spec.engine.cont_batching, spec.engine.threads, spec.endpoints.metrics) == (True, 2, False)


def test_of_a_choice_the_models_own_replaces_the_default_as_a_whole() -> None:
    raw = a_model().with_spec(grammar={"inline": 'root ::= "a"'}).raw()
    grammar = LlamaModel.parse(raw, defaults={"grammar": {"builtin": "json"}}).spec.grammar
    assert grammar is not None
    assert (grammar.builtin, grammar.inline) == (None, 'root ::= "a"')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    sorted(field.alias or name for name, field in type(a_model().build().spec).model_fields.items())
)


@given(spec=st.dictionaries(fields, json_values, max_size=4))
def test_whatever_stands_in_a_field_there_are_findings_and_no_exception(spec: dict[str, Any]) -> None:
    review({"metadata": {"name": "x"}, "spec": {**a_model().spec, **spec}})


@given(words=st.lists(st.text(max_size=30) | st.sampled_from(["--top-k", "--", "-", "--lora", "$(X)"]), max_size=6))
def test_whatever_words_are_given_there_are_findings_and_no_exception(words: list[str]) -> None:
    review(with_arguments(B11669, *words))
