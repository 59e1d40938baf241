"""The catalogues say what the real servers say, and the two ways to make one agree."""

import difflib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from devcatalogue.files import render
from devcatalogue.make import catalogue_of_help, catalogue_of_source, help_of
from devcatalogue.sources import SOURCES, fetch_source

from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState
from llamamodel_operator.core.engine.catalogues import shipped_catalogues

SHIPPED = shipped_catalogues()
START_SEC = 60


def made_from(build: int, server: Path) -> Catalogue:
    older = [number for number in SHIPPED.builds if number < build]
    return catalogue_of_help(
        help_of(server), build=build, source=SHIPPED.get(build).source, older=SHIPPED.get(older[-1])
    )


def test_a_catalogue_made_again_from_its_binary_is_the_same(server: tuple[int, Path]) -> None:
    build, command = server
    expected, made = render(SHIPPED.get(build)), render(made_from(build, command))
    assert made == expected, "\n".join(difflib.unified_diff(expected.splitlines(), made.splitlines(), lineterm="", n=0))


def test_the_help_does_not_depend_on_the_machine(
    server: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build, command = server
    for name, value in {"LLAMA_ARG_CTX_SIZE": "77", "HF_TOKEN": "secret", "COLUMNS": "40", "LANG": "de_DE"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert made_from(build, command) == SHIPPED.get(build)


def test_what_is_called_removed_is_refused(server: tuple[int, Path]) -> None:
    build, command = server
    for flag in SHIPPED.get(build).flags:
        if flag.state is FlagState.REMOVED:
            for spelling in flag.spellings:
                status, output = parse_only(command, spelling, *["1"] * flag.arity)
                assert status == 1, (build, spelling, output[-300:])
                # Those that the build does not know at all it calls invalid; the others come with a hint.
                expected = f"invalid argument: {spelling}" if flag.carried else "the argument has been removed"
                assert expected in output, (build, spelling, output[-300:])


def test_what_takes_no_value_takes_none_and_what_takes_values_wants_all_of_them(server: tuple[int, Path]) -> None:
    build, command = server
    for flag in SHIPPED.get(build).flags:
        if flag.state is FlagState.REMOVED or flag.name in ENDS_AT_ONCE:
            continue
        for spelling in flag.spellings:
            if flag.arity == 0:
                # The next word is not its value: it is read as an argument, and refused.
                status, output = parse_only(command, spelling, "--no-such-flag")
                assert "invalid argument: --no-such-flag" in output, (build, spelling, output[-300:])
            else:
                status, output = parse_only(command, spelling, *["1"] * (flag.arity - 1))
                assert "expected value for argument" in output, (build, spelling, output[-300:])
            assert status == 1, (build, spelling)


ENDS_AT_ONCE = frozenset({"--help", "--version", "--list-devices", "--cache-list", "--license", "--completion-bash"})
"""Arguments that print something and end before the next one is read."""


def parse_only(command: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a server that comes no further than its arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    done = subprocess.run(
        [command, *arguments], capture_output=True, text=True, check=False, timeout=START_SEC, env=environment
    )
    return done.returncode, done.stdout + done.stderr


def test_help_and_source_of_one_build_give_the_same_facts() -> None:
    build = 10068
    older = SHIPPED.get(max(number for number in SHIPPED.builds if number < build))
    folder = fetch_source(SOURCES[build], say=lambda text: print(text, file=sys.stderr))
    from_source = catalogue_of_source(folder, build=build, source="", older=older)
    from_help = SHIPPED.get(build)
    assert from_source.chat_templates == from_help.chat_templates
    assert list(map(without_default, from_source.flags)) == list(map(without_default, from_help.flags))
    unlike = {
        help_flag.name
        for source_flag, help_flag in zip(from_source.flags, from_help.flags, strict=True)
        if source_flag.default != help_flag.default
    }
    # What these print is computed when the server starts; the source alone does not tell.
    assert unlike == {"--fit-target", "--sampling-seq", "--spec-type"}


def without_default(flag: Flag) -> Flag:
    return replace(flag, default=None)
