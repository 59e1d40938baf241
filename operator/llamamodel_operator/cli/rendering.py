"""What `llamamodel render` prints: objects and command lines, secrets masked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from llamamodel_operator.cli.terminal import json_text
from llamamodel_operator.cli.yaml_text import yaml_text
from llamamodel_operator.core.engine.masking import MASK, is_secret_variable, mask_command
from llamamodel_operator.core.plan import Plan

__all__ = ["command_groups", "command_text", "objects_text"]


def objects_text(plans: Sequence[Plan], *, output: str) -> str:
    """All objects of all plans: YAML documents, or a List in JSON."""
    objects = [_masked(child) for plan in plans for child in plan.objects]
    if output == "json":
        return json_text({"apiVersion": "v1", "kind": "List", "items": objects})
    return "---\n".join(map(yaml_text, objects)).rstrip("\n")


def command_text(plans: Sequence[Plan], *, output: str | None, on_terminal: bool) -> str:
    """Each command line: quoted for a shell, or as a JSON list, a line for each plan.

    On a terminal each flag has a line of its own.
    """
    if output == "json":
        return "\n".join(json_text(list(plan.command), indent=None) for plan in plans)
    return "\n".join(_shell_text(plan.command, on_terminal=on_terminal) for plan in plans)


def _shell_text(command: Sequence[str], *, on_terminal: bool) -> str:
    if not on_terminal:
        return shlex.join(command)
    return " \\\n  ".join(shlex.join(group) for group in command_groups(command))


def command_groups(command: Sequence[str]) -> list[tuple[str, ...]]:
    """The words, each flag together with its values."""
    groups: list[list[str]] = []
    for word in command:
        if not groups or (word.startswith("-") and word[1:2].isascii() and not word[1:2].isdigit()):
            groups.append([])
        groups[-1].append(word)
    return [tuple(group) for group in groups]


def _masked(child: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it may be shown: secrets on its command line and in its environment are replaced."""
    if child["kind"] != "Deployment":
        return dict(child)
    template = child["spec"]["template"]
    containers = [
        container
        | {
            "args": list(mask_command(container.get("args", ()))),
            "env": [
                entry | {"value": MASK} if entry.get("value") and is_secret_variable(str(entry["name"])) else entry
                for entry in container.get("env", ())
            ],
        }
        for container in template["spec"]["containers"]
    ]
    pod = {**template["spec"], "containers": containers}
    return {**child, "spec": {**child["spec"], "template": {**template, "spec": pod}}}
