"""The workflows in .github: what `make lint-workflows` does not look for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
IMAGES = "docker/build-push-action"


def jobs(workflow: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load(workflow.read_text())["jobs"].values()


def test_there_are_workflows() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_their_commit_since_tags_move(workflow: Path) -> None:
    used = [line.strip() for line in workflow.read_text().splitlines() if "uses:" in line]
    assert [line for line in used if not PINNED.search(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_command_that_fails_in_a_pipe_fails_the_step(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["defaults"]["run"]["shell"] == "bash"
    assert [step for job in jobs(workflow) for step in job["steps"] if "shell" in step] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_images_of_other_architectures_are_built_where_their_commands_run(workflow: Path) -> None:
    for job in jobs(workflow):
        used = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
        if IMAGES in used:
            assert "docker/setup-qemu-action" in used[: used.index(IMAGES)]
