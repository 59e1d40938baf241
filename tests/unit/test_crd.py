"""The CustomResourceDefinition: generated, structural, documented to the last field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api import crd
from llamamodel_operator.api.conditions import ConditionType
from llamamodel_operator.api.crd import custom_resource_definition

FILE = Path(__file__).parents[2] / "crds" / "llamamodels.yaml"
CRD = custom_resource_definition()
(VERSION,) = CRD["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with the path that `kubectl explain` takes to it."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key], f"{path}[]")


ALL = dict(schemas(SCHEMA))


def test_the_file_is_what_the_generator_writes(capsys: pytest.CaptureFixture[str]) -> None:
    crd.main()
    assert FILE.read_text(encoding="utf-8") == capsys.readouterr().out, "run `make generate`"


def test_the_file_reads_back_as_what_was_generated() -> None:
    assert yaml.safe_load(FILE.read_text(encoding="utf-8")) == CRD


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_documented(part: str) -> None:
    named = [path for path in ALL if path.startswith(f".{part}") and not path.endswith("[]")]
    assert len(named) > 20
    assert [path for path in named if not ALL[path].get("description")] == []


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf", "$ref", "$defs", "title", "const", "nullable", "examples"])
def test_the_schema_is_structural(word: str) -> None:
    assert [path for path, schema in ALL.items() if word in schema] == []


def test_every_schema_has_a_type_and_none_of_our_own_marks_is_left() -> None:
    for path, schema in ALL.items():
        either = "type" in schema, schema.get("x-kubernetes-int-or-string") is True
        assert any(either), path
        assert not any(key.startswith("x-llamamodel") for key in schema), path


def test_the_names_are_those_that_users_type() -> None:
    names = CRD["spec"]["names"]
    assert CRD["metadata"]["name"] == "llamamodels.llamamodel.dev"
    assert (names["kind"], names["plural"], names["shortNames"]) == ("LlamaModel", "llamamodels", ["lm", "llama"])
    assert CRD["spec"]["scope"] == "Namespaced"


def test_status_and_scale_are_subresources_whose_paths_exist() -> None:
    assert VERSION["subresources"]["status"] == {}
    for path in VERSION["subresources"]["scale"].values():
        assert path in ALL


def test_every_printed_column_exists() -> None:
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"]
        if path.startswith(".metadata"):
            continue
        plain = path.replace('[?(@.type=="Ready")]', "[]")
        assert plain in ALL, column["name"]


def test_the_spec_is_required_and_in_it_only_the_model() -> None:
    assert SCHEMA["required"] == ["spec"]
    assert ALL[".spec"]["required"] == ["model"]
    assert "required" not in ALL[".status"]


@pytest.mark.parametrize(
    ("path", "default"),
    [
        (".spec.replicas", 1),
    ],
)
def test_defaults_that_others_read_are_written_into_the_object(path: str, default: object) -> None:
    assert ALL[path]["default"] == default


def test_no_other_default_is_since_it_would_hide_those_of_the_operators_configuration() -> None:
    with_default = {path for path, schema in ALL.items() if "default" in schema and path.startswith(".spec")}
    assert with_default == {".spec.replicas"}


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        (".spec.startupTimeoutSec", (1, 86_400)),
        (".spec.replicas", (0, 1000)),
        (".spec.gpu.count", (1, 64)),
        (".spec.engine.parallelSlots", (1, 256)),
    ],
)
def test_numbers_are_bounded(path: str, bounds: tuple[int, int]) -> None:
    assert (ALL[path]["minimum"], ALL[path]["maximum"]) == bounds


def test_every_rule_has_a_message_that_says_what_to_do() -> None:
    rules = [rule for schema in ALL.values() for rule in schema.get("x-kubernetes-validations", [])]
    assert len(rules) > 10
    assert all(rule["message"] for rule in rules)


def test_lists_and_texts_under_a_rule_are_bounded_so_that_its_cost_is() -> None:
    for path, schema in ALL.items():
        if "x-kubernetes-validations" not in schema or not path.startswith(".spec"):
            continue
        if schema.get("type") == "string" or schema.get("x-kubernetes-int-or-string"):
            assert "maxLength" in schema or path.endswith(("contextSize", "gpuLayers", "cpuMoeLayers")), path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path


def test_lists_with_keys_are_merged_by_them() -> None:
    for path, key in ((".spec.env", "name"), (".status.conditions", "type")):
        assert ALL[path]["x-kubernetes-list-type"] == "map"
        assert ALL[path]["x-kubernetes-list-map-keys"] == [key]
        assert key in ALL[f"{path}[]"]["required"]


def test_conditions_have_the_form_that_kubectl_wait_reads() -> None:
    condition = ALL[".status.conditions[]"]
    assert set(condition["required"]) == {
        "type", "status", "reason", "message", "lastTransitionTime", "observedGeneration",
    }  # fmt: skip
    assert ALL[".status.conditions[].status"]["enum"] == ["True", "False", "Unknown"]
    assert [kind.value for kind in ConditionType] == [
        "Accepted",
        "Inspected",
        "MemoryFits",
        "Available",
        "Progressing",
        "Offloaded",
        "Ready",
    ]
