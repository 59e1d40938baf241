"""Argo CD's scripts for LlamaModel, by the cases beside them, in the virtual machine that Argo CD has and in another.

The cases are in Argo CD's own format. gopher-lua, which Argo CD has, runs them by `gitops-rules lua` (its source is in
hack/cluster/gomods/gitops), Lua 5.1 itself here, by lupa. In both, what Argo CD does not open is closed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaError, LuaRuntime

from support.gitops import ARGOCD, gitops_rules

SCRIPTS = ARGOCD / "resource_customizations" / "llamamodel.dev" / "LlamaModel"
HEALTH: list[dict[str, Any]] = yaml.safe_load((SCRIPTS / "health_test.yaml").read_text())["tests"]
ACTIONS: dict[str, Any] = yaml.safe_load((SCRIPTS / "actions" / "action_test.yaml").read_text())
CLOSED = ("string", "math", "io", "os", "coroutine", "debug", "python")


def run(script: str, model: object) -> Any:
    """What a script returns for an object, with base, package and table alone, as in Argo CD (util/lua/lua.go)."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    close = "".join(f"{name} = nil package.loaded['{name}'] = nil " for name in CLOSED)
    lua.execute(f"getmetatable('').__index = nil {close}")
    lua.globals()["obj"] = lua.table_from(model, recursive=True)
    return _plain(lua.execute(script))


def _plain(value: Any) -> Any:
    """A table as a dictionary, or as a list where it is one."""
    if not hasattr(value, "items"):
        return value
    items = {key: _plain(inner) for key, inner in value.items()}
    return list(items.values()) if items and set(items) == set(range(1, len(items) + 1)) else items


def _without_empty(value: Any) -> Any:
    """Lua has one empty table for lists and objects; Argo CD puts back what was there."""
    if isinstance(value, dict):
        return {key: inner for key, raw in value.items() if (inner := _without_empty(raw)) not in ({}, [])}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def load(path: str, *, folder: Path = SCRIPTS) -> Any:
    return yaml.safe_load((folder / path).read_text())


@pytest.mark.parametrize("case", HEALTH, ids=lambda case: Path(case["inputPath"]).stem)
def test_a_health_is_as_its_case_says(case: dict[str, Any]) -> None:
    assert run((SCRIPTS / "health.lua").read_text(), load(case["inputPath"])) == case["healthStatus"]


def test_every_object_has_a_case_and_every_health_is_among_them() -> None:
    assert {case["inputPath"] for case in HEALTH} == {f"testdata/{f.name}" for f in (SCRIPTS / "testdata").iterdir()}
    found = {case["healthStatus"]["status"] for case in HEALTH}
    assert found == {"Healthy", "Progressing", "Degraded", "Suspended"}
    assert len(HEALTH) >= 12


@pytest.mark.parametrize("case", ACTIONS["discoveryTests"], ids=lambda case: Path(case["inputPath"]).stem)
def test_the_actions_that_are_offered(case: dict[str, Any]) -> None:
    wanted = {action.pop("name"): action for action in [dict(action) for action in case["result"]]}

    model = load(case["inputPath"], folder=SCRIPTS / "actions")
    assert run((SCRIPTS / "actions/discovery.lua").read_text(), model) == wanted


@pytest.mark.parametrize("case", ACTIONS["actionTests"], ids=lambda case: case["action"])
def test_an_action_changes_what_it_should_and_nothing_else(case: dict[str, Any]) -> None:
    folder = SCRIPTS / "actions"

    made = run((folder / case["action"] / "action.lua").read_text(), load(case["inputPath"], folder=folder))

    assert _without_empty(made) == _without_empty(load(case["expectedOutputPath"], folder=folder))


@pytest.mark.parametrize("name", CLOSED)
def test_what_argo_cd_does_not_open_is_closed_here(name: str) -> None:
    assert run(f"return {{found = {name} ~= nil}}", {}) == {"found": False}
    with pytest.raises(LuaError):
        run(f"return require('{name}')", {})


def test_strings_have_no_methods_here() -> None:
    with pytest.raises(LuaError):
        run("return {x = ('a'):upper()}", {})


def test_argo_cds_own_virtual_machine_says_the_same() -> None:
    said = gitops_rules("lua", str(SCRIPTS)).stdout

    cases = len(HEALTH) + len(ACTIONS["discoveryTests"]) + len(ACTIONS["actionTests"])
    assert said.splitlines()[-1] == f"{cases} passed, 0 failed"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("health_test.yaml", "status: Suspended", "status: Healthy"),
        ("health.lua", "local message = ready.message", "local message = ('x'):upper()"),
        ("actions/suspend/action.lua", "true", "false"),
        ("actions/discovery.lua", "fa-play", "fa-stop"),
    ],
)
def test_argo_cds_own_virtual_machine_fails_a_case_that_is_wrong(file: str, old: str, new: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SCRIPTS, tmp_path / "LlamaModel"))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))

    with pytest.raises(subprocess.CalledProcessError) as failed:
        gitops_rules("lua", str(copy))
    assert "FAIL" in failed.value.stdout


def test_the_patch_of_argocd_cm_has_the_scripts() -> None:
    data = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]

    assert data["resource.customizations.health.llamamodel.dev_LlamaModel"] == (SCRIPTS / "health.lua").read_text()
    actions = yaml.safe_load(data["resource.customizations.actions.llamamodel.dev_LlamaModel"])
    assert actions["discovery.lua"] == (SCRIPTS / "actions/discovery.lua").read_text()
    assert {action["name"]: action["action.lua"] for action in actions["definitions"]} == {
        name: (SCRIPTS / "actions" / name / "action.lua").read_text() for name in ("resume", "suspend")
    }
    assert set(data) == {
        "resource.customizations.health.llamamodel.dev_LlamaModel",
        "resource.customizations.actions.llamamodel.dev_LlamaModel",
    }
