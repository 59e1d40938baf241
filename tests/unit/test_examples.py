"""The examples: the command line finds no error in them, they are listed, and they show every field of a spec's top."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.cli.main import run

FOLDER = Path(__file__).parents[2] / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))

WARNED = {
    "grammar.yaml": {"ToolsUnderGrammar"},
    "json-output.yaml": {"ToolsUnderGrammar"},
    "system-prompt.yaml": {"SystemPromptUnused"},
}
"""What an example is warned of on purpose. The model's own chat template is not known without its file."""


def models(file: Path) -> list[dict[str, Any]]:
    """The LlamaModels in a file."""
    documents = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    return [document for document in documents if document["kind"] == "LlamaModel"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_command_line_finds_nothing_but_what_is_meant(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["llamamodel", "validate", "-o", "json", str(file)]) == 0
    said = json.loads(capsys.readouterr().out)

    findings = [finding for model in said["models"] for finding in model["findings"]]
    assert said["summary"]["models"] == len(models(file)) > 0
    assert said["problems"] == []
    assert {found["code"] for found in findings if found["severity"] != "info"} == WARNED.get(file.name, set())


def test_their_names_differ_so_that_all_can_be_applied_together() -> None:
    names = [model["metadata"]["name"] for file in FILES for model in models(file)]

    assert sorted(names) == sorted(set(names))


def test_each_field_of_a_spec_is_shown() -> None:
    shown = {field for file in FILES for model in models(file) for field in model["spec"]}

    assert shown == {field.alias for field in LlamaModelSpec.model_fields.values()}


def test_all_of_them_are_listed() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))

    files = [file.relative_to(FOLDER) for file in FOLDER.rglob("*.yaml")]
    assert sorted(links) == sorted(str(file) for file in files if file.parts[0] != "gitops")
