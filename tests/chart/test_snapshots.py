"""What each switch changes in what is rendered, as files for the review: the whole by default, then the differences."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.chart import CHART, template
from support.chart_switches import SWITCHES

RENDERED = Path(__file__).parent / "rendered"


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with its file; `--renew-rendered` writes the file."""
    renew = bool(request.config.getoption("--renew-rendered", default=False))

    def compare(name: str, text: str) -> None:
        file = RENDERED / name
        if renew:
            RENDERED.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{file.name} is missing: uv run pytest tests/chart --renew-rendered"
        assert text == file.read_text(encoding="utf-8")

    return compare


@cache
def objects(values: str) -> Mapping[str, str]:
    """Each object as YAML with its keys in order, by kind, namespace and name."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    documents = [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc]
    named = {
        " ".join(filter(None, (doc["kind"], doc["metadata"].get("namespace"), doc["metadata"]["name"]))): doc
        for doc in documents
    }
    assert len(named) == len(documents), "two objects have one name"
    return {name: _text(doc) for name, doc in sorted(named.items())}


def _text(document: Mapping[str, Any]) -> str:
    if document["kind"] == "CustomResourceDefinition":
        document = {"metadata": document["metadata"], "spec": "as in crds/llamamodels.yaml"}
    return yaml.dump(document, Dumper=yaml.CSafeDumper, width=100)


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """A section for each object that is new, gone or other than before."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None:
            yield f"=== new: {name}\n{new}"
        elif new is None:
            yield f"=== gone: {name}\n"
        elif old != new:
            lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=2, lineterm=""))[2:]
            yield f"=== changed: {name}\n" + "".join(
                f"{'…' if line.startswith('@@') else line.rstrip()}\n" for line in lines
            )


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of everything that can be set on its own."""
    if isinstance(value, dict) and value and path[-1:] not in {("byResource",), ("resources",), ("timeouts",)}:
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path


def at(values: Any, path: tuple[str, ...]) -> Any:
    """What is at a path; None where nothing is."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def test_by_default(snapshot: Callable[[str, str], None]) -> None:
    snapshot("defaults.yaml", "---\n".join(objects("{}").values()))


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_what_it_should_and_nothing_else(name: str, snapshot: Callable[[str, str], None]) -> None:
    given = yaml.safe_load(SWITCHES[name])
    before: dict[str, Any] = {}
    if given.get("gateway", {}).get("enabled") and name != "gateway":
        before = {"gateway": {"enabled": True}}
    if given.get("networkPolicy", {}).get("enabled") and len(given["networkPolicy"]) > 1:
        before |= {"networkPolicy": {"enabled": True}}
    changed = "".join(differences(objects(json.dumps(before)), objects(SWITCHES[name])))
    assert changed, "the switch changes nothing"
    snapshot(f"{name}.diff", f"from {json.dumps(before)} to {json.dumps(given)}\n{changed}")


def test_every_value_is_in_a_snapshot() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    given = [yaml.safe_load(values) for values in SWITCHES.values()]
    untouched = [
        ".".join(path)
        for path in leaves(defaults)
        if all(at(values, path) in (None, at(defaults, path)) for values in given)
        and path not in {("podSecurityContext", "runAsNonRoot"), ("podSecurityContext", "seccompProfile", "type")}
        and path[:2] != ("podSecurityContext", "runAsUser")
        and path[:2] != ("podSecurityContext", "runAsGroup")
    ]
    assert untouched == [], "add a case to tests/support/chart_switches.py"


def test_no_snapshot_is_left_of_a_switch_that_is_gone() -> None:
    assert {file.name for file in RENDERED.iterdir()} == {"defaults.yaml", *(f"{name}.diff" for name in SWITCHES)}
