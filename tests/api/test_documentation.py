"""kubectl has the subcommands and options that the documentation names."""

from __future__ import annotations

import pytest

from support.documentation import Command, commands, pages

from .harness.cluster import Cluster

COMMANDS = [command for page in pages() for command in commands(page) if command.words[0] == "kubectl"]


def _distinct() -> list[Command]:
    return list({command.words: command for command in COMMANDS}.values())


def test_kubectl_has_what_is_typed(cluster: Cluster) -> None:
    """With --help, kubectl reads the options, and says which it does not have, and does nothing."""
    assert len(_distinct()) > 50
    refused = {
        str(command): done.stderr
        for command in _distinct()
        if command.words[1:2] != ("llamamodel",)
        and (done := cluster.kubectl(*_with_help(command.words[1:]), check=False)).returncode
    }
    assert refused == {}


def test_what_kubectl_does_not_have_is_noticed(cluster: Cluster) -> None:
    assert cluster.kubectl("get", "pods", "--nothing", "--help", check=False).returncode != 0


def _with_help(words: tuple[str, ...]) -> tuple[str, ...]:
    """Before a double dash, behind which are the words of another program."""
    cut = words.index("--") if "--" in words else len(words)
    return (*words[:cut], "--help")


@pytest.mark.parametrize("words", [("exec", "pod", "--", "ls"), ("get", "pods")])
def test_help_is_asked_of_kubectl_alone(words: tuple[str, ...]) -> None:
    assert "ls" not in _with_help(words)
