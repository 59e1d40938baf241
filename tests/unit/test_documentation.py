"""What the documentation tells people to type and to write is there: commands, options, targets, values, manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.cli.commands import cli
from llamamodel_operator.cli.main import run
from support.documentation import Block, Command, blocks, commands, pages

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "llamamodel-operator"
COMMANDS = [command for page in pages() for command in commands(page)]
MANIFESTS = [block for page in pages() for block in blocks(page) if block.language in ("yaml", "yml")]
FIELDS = {field.alias for field in LlamaModelSpec.model_fields.values()}
OTHER_YAML = {
    ("docs/cli.md", "- run: pip install llamamodel-operator"),
    ("docs/gateway.md", "sha256: "),
    ("docs/gateway.md", "podMetricsEndpoints:"),
}
"""Blocks that are neither manifests, nor parts of a LlamaModel, nor values: page and how they begin."""


def of(*programs: str) -> list[Command]:
    """The commands of these programs."""
    return [command for command in COMMANDS if command.words[0] in programs]


def check_command_line(words: list[str]) -> None:
    """Raises click.UsageError where a subcommand, an option or a choice does not exist; values are not looked at."""
    command: click.Command = cli
    context = click.Context(command, info_name="llamamodel")
    while isinstance(command, click.Group) and words:
        if words[0] not in command.commands and command.name == "flags":
            words = ["list", *words]
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context, **found.context_settings)
    given, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


@pytest.mark.parametrize("command", of("llamamodel"), ids=str)
def test_the_command_line_has_what_is_typed(command: Command) -> None:
    check_command_line(list(command.words[1:]))


@pytest.mark.parametrize(
    "words", [["nothing"], ["render", "--nothing"], ["flags", "diff", "--x"], ["top", "-o", "xml"]]
)
def test_what_the_command_line_does_not_have_is_noticed(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        check_command_line(words)


def test_make_has_the_targets() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for command in of("make") for word in command.words[1:] if "=" not in word}

    assert len(named) > 10
    assert named <= set(targets)


def test_workflows_run_targets_that_there_are() -> None:
    files = (ROOT / ".github" / "workflows").glob("*.y*ml")
    jobs = [job for file in files for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()]
    run = [step["run"] for job in jobs for step in job["steps"] if step.get("run", "").startswith("make ")]
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert {"verify", "sbom"} <= {word for line in run for word in line.split()[1:]} <= set(targets)


def test_the_scripts_are_there() -> None:
    scripts = {command.words[1] for command in of("python3") if len(command.words) > 1}

    assert [script for script in scripts if not (ROOT / script).exists()] == []


def values_set() -> Iterator[tuple[Command, str]]:
    """Each path that a command of helm sets."""
    for command in of("helm"):
        for option, value in zip(command.words, command.words[1:], strict=False):
            if option in ("--set", "--set-string", "--set-json"):
                yield command, value.partition("=")[0]


@cache
def chart_values() -> dict[str, Any]:
    """The chart's defaults."""
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values


def test_helm_is_told_to_set_values_that_there_are() -> None:
    paths = list(values_set())
    assert len(paths) > 3
    for command, path in paths:
        here: Any = chart_values()
        for name in path.split("."):
            assert isinstance(here, dict), f"{command}: {path}"
            if here == {}:  # a map of the user's own, such as labels
                break
            assert name in here, f"{command}: {path}"
            here = here[name]


def test_an_upgrade_takes_the_defaults_of_the_new_chart() -> None:
    """With --reuse-values alone, values that only a newer chart has are nil in its templates."""
    upgrades = [command for command in of("helm") if command.words[1:2] == ("upgrade",)]
    assert any("--reset-then-reuse-values" in command.words for command in upgrades)
    assert [str(command) for command in upgrades if "--reuse-values" in command.words] == []


@pytest.mark.parametrize("block", MANIFESTS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_manifest_is_valid(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [document for document in yaml.safe_load_all(block.text) if document is not None]
    assert documents
    for document in documents:
        if not isinstance(document, dict):
            assert is_other(block)
        elif {"apiVersion", "kind"} <= set(document):
            if document["kind"] == "LlamaModel":
                validate(document, tmp_path, capsys)
        elif set(document) == {"spec"} and set(document["spec"]) <= {
            f.alias for f in LlamaModelSpec.model_fields.values()
        }:
            spec = {"model": {"pvc": {"claimName": "models", "path": "m.gguf"}}, **document["spec"]}
            metadata = {"apiVersion": "llamamodel.dev/v1alpha1", "kind": "LlamaModel", "metadata": {"name": "part"}}
            validate({**metadata, "spec": spec}, tmp_path, capsys)
        elif set(document) <= set(chart_values()):
            jsonschema.validate(document, json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))
        else:
            assert is_other(block), "say in OTHER_YAML what is no manifest"


def is_other(block: Block) -> bool:
    """Whether it is known to be no manifest."""
    return any(block.page == page and block.text.startswith(beginning) for page, beginning in OTHER_YAML)


def validate(document: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line finds no error in it."""
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    code = run(["llamamodel", "validate", str(file)])
    assert code == 0, capsys.readouterr().out
