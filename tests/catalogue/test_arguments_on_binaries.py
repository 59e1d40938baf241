"""What the checks of arguments call valid, a real llama-server takes; what they call an error, it refuses.

The server reads its command line from left to right and ends at --version, so that with it as the last word only
the parser runs. Where a value is missing at the end, the parser refuses without it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.core.engine.arguments import ArgumentReport, check_arguments
from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState, ValueType
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.policy import ArgumentPolicy, Reach, risk_of

_SEED = 11669
_WRONG_LISTS = 120
_FLAGS_IN_A_LIST = 3
_OURS = {FindingCode.MANAGED_FLAG, FindingCode.DUPLICATE_SETTING, FindingCode.FORBIDDEN_FLAG}
"""Rules of the operator that the server knows nothing of."""

_VALUES = {
    "--device": "none",
    "--device-draft": "none",
    "--mmproj-device": "none",
    "--override-tensor": "exps=CPU",
    "--override-tensor-draft": "exps=CPU",
    "--override-kv": "a.b=int:1",
    "--tensor-split": "3,1",
    "--fit-target": "512",
    "--cpu-mask": "0xff",
    "--cpu-mask-batch": "0xff",
    "--cpu-mask-draft": "0xff",
    "--cpu-mask-batch-draft": "0xff",
    "--cpu-range": "0-1",
    "--cpu-range-batch": "0-1",
    "--cpu-range-draft": "0-1",
    "--logit-bias": "15+1.5",
    "--json-schema": '{"type": "object"}',
    "--chat-template-kwargs": "{}",
    "--ui-config": "{}",
    "--mcp-servers-json": "{}",
    "--spec-synth-rates": "0.5",
    "--tools-runtime": "docker:none",
    "--host": "127.0.0.1",
}
"""Values for flags whose type alone does not say what they take."""

_WRONG_WORDS = ("--flash-atten", "--quux", "stray", "-1", "--top-k=5", "--top-k 5", "top-k", "--CTX-SIZE")
_WRONG_VALUES = ("many", "", "8k", "1.5x", "1e999", "99999999999", "nan", "ON", "a,b", "\u0663", "-")


@dataclass(frozen=True, kw_only=True)
class _Case:
    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=())


class _Server:
    """A binary, the catalogue of its build, and files for it."""

    def __init__(self, build: int, command: Path, folder: Path) -> None:
        self.match = shipped_catalogues().match(build)
        assert self.match.exact, f"there is no catalogue of b{build}"
        self.catalogue: Catalogue = self.match.catalogue
        self.folder = folder
        self._command = command
        everything = {spelling for flag in self.catalogue.flags for spelling in flag.spellings}
        self._policy = ArgumentPolicy(allow_unsafe=frozenset(everything))

    def check(self, case: _Case) -> ArgumentReport:
        env = [{"name": name, "value": value} for name, value in case.env]
        return check_arguments(
            case.words,
            env,
            match=self.match,
            catalogues=shipped_catalogues(),
            managed={},
            typed={},
            policy=self._policy,
            mounts=(),
        )

    def refusal(self, case: _Case) -> str | None:
        """What the binary has against a command line; None where its parser takes it."""
        report = self.check(case)
        unfinished = any("end of spec.extraArgs" in finding.message for finding in report.findings)
        run = subprocess.run(
            [self._command, *case.words, *([] if unfinished else ["--version"])],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **dict(case.env)},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        output = (run.stdout + run.stderr).decode(errors="replace")
        return None if run.returncode == 0 and "version:" in output else output or f"exit status {run.returncode}"

    def flags(self) -> list[Flag]:
        return [
            flag
            for flag in self.catalogue.flags
            if flag.state is not FlagState.REMOVED
            and not ((risk := risk_of(flag)) and risk.reach is Reach.EXIT)
            and "--rpc" not in flag.spellings  # builds without RPC support refuse it, whatever its value
        ]

    def value(self, flag: Flag, chance: random.Random, *, position: int = 0) -> str:
        by_name = next((_VALUES[spelling] for spelling in flag.spellings if spelling in _VALUES), None)
        if by_name is not None:
            return by_name
        if flag.value_type is ValueType.PATH:
            if position:
                return "0.5"
            if re.search("-(path|dir)$", flag.name):
                return str(self.folder)
            path = self.folder / flag.name.strip("-")  # one for each: the parser empties that of --log-file
            path.write_text('{"type": "object"}')
            return f"{path}:0.5" if flag.name.endswith("-scaled") and flag.arity == 1 else str(path)
        if flag.allowed or flag.words:
            return chance.choice(flag.allowed or (*flag.words, "7"))
        kinds = {ValueType.INTEGER: ("1", "2", "3"), ValueType.FLOAT: ("0.5", "1", ".25", "1e-1")}
        return chance.choice(kinds.get(flag.value_type or ValueType.STRING, ("word", "two words", "ä")))

    def words(self, flag: Flag, chance: random.Random) -> list[str]:
        spelling = chance.choice(flag.spellings)
        arity = 0 if spelling in flag.negations else flag.arity
        return [spelling, *(self.value(flag, chance, position=position) for position in range(arity))]


@pytest.fixture
def binary(server: tuple[int, Path], tmp_path: Path) -> _Server:
    build, command = server
    return _Server(build, command, tmp_path)


def _errors(report: ArgumentReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity is Severity.ERROR]


def _valid_cases(binary: _Server) -> Iterator[_Case]:
    """All flags of the build, a few at a time, then all variables."""
    chance = random.Random(_SEED)  # noqa: S311
    flags = binary.flags()
    chance.shuffle(flags)
    for start in range(0, len(flags), _FLAGS_IN_A_LIST):
        yield _Case(words=tuple(w for f in flags[start : start + _FLAGS_IN_A_LIST] for w in binary.words(f, chance)))
    with_variable = [flag for flag in flags if flag.env and flag.arity < 2]
    for start in range(0, len(with_variable), _FLAGS_IN_A_LIST):
        few = with_variable[start : start + _FLAGS_IN_A_LIST]
        yield _Case(
            words=(),
            env=tuple((flag.env or "", binary.value(flag, chance) if flag.arity else "true") for flag in few),
        )


def _wrong_cases(binary: _Server) -> Iterator[_Case]:
    """Valid lists with one slip each: a word too many or too few, a wrong value, an unknown or a removed flag."""
    chance = random.Random(_SEED + 1)  # noqa: S311
    flags = binary.flags()
    with_value = [flag for flag in flags if flag.arity and flag.value_type in (ValueType.INTEGER, ValueType.FLOAT)]
    with_list = [flag for flag in flags if flag.allowed]
    removed = [flag for flag in binary.catalogue.flags if flag.state is FlagState.REMOVED]
    for turn in range(_WRONG_LISTS):
        words = [word for flag in chance.sample(flags, 2) for word in binary.words(flag, chance)]
        slip = turn % 6
        if slip == 0:
            words += [chance.choice(_WRONG_WORDS)]
        elif slip == 1:
            words += [chance.choice(with_value).name, chance.choice(_WRONG_VALUES)]
        elif slip == 2:
            words += [chance.choice(with_list).name, chance.choice(_WRONG_VALUES)]
        elif slip == 3:
            words += [chance.choice(with_value).name]
        elif slip == 4 and removed:
            words += binary.words(chance.choice(removed), chance)
        else:
            flag = chance.choice([flag for flag in with_value if flag.env])
            yield _Case(words=(), env=((flag.env or "", chance.choice(_WRONG_VALUES)),))
            continue
        yield _Case(words=tuple(words))


def test_every_flag_and_variable_that_is_called_valid_is_taken(binary: _Server) -> None:
    cases = list(_valid_cases(binary))
    called_wrong = [(case, _errors(binary.check(case))) for case in cases if _errors(binary.check(case))]
    refused = [(case, why) for case in cases if (why := binary.refusal(case))]
    assert not called_wrong
    assert not refused
    assert sum(len(case.words) + len(case.env) for case in cases) > len(binary.flags())


def test_what_is_called_an_error_is_refused_or_against_a_rule_of_ours(binary: _Server) -> None:
    by_server = by_us = 0
    for case in _wrong_cases(binary):
        report, refusal = binary.check(case), binary.refusal(case)
        errors = _errors(report)
        if refusal is None:
            assert report.will_not_start is None, case
            assert all(finding.code in _OURS or _is_misread(finding, case) for finding in errors), (case, errors)
            by_us += bool(errors)
        else:
            assert errors or report.will_not_start, (case, refusal)
            by_server += 1
    print(f"b{binary.catalogue.build}: of {_WRONG_LISTS} the server refuses {by_server}, we alone {by_us}")
    assert by_server > _WRONG_LISTS / 2


def _is_misread(finding: Finding, case: _Case) -> bool:
    """Whether the value is one that llama-server takes for another: it reads `8k` as 8 (core/engine/values.py).

    Of a closed list of numbers, such as 0 and 1, it takes every number, and --numa takes nothing at all for a value.
    """
    if finding.code is not FindingCode.INVALID_FLAG_VALUE:
        return False
    place = re.fullmatch(r"spec\.(extraArgs|env)\[([0-9]+)\]", finding.field)
    assert place is not None
    value = case.words[int(place[2])] if place[1] == "extraArgs" else case.env[int(place[2])][1]
    return value == "" or re.match(r"[+-]?([0-9]|nan|inf)", value) is not None


def test_a_command_line_with_a_flag_of_every_kind_of_slip_is_refused_by_each_build(binary: _Server) -> None:
    slips: Sequence[tuple[str, ...]] = (
        ("--flash-atten", "on"),
        ("--ctx-size", "many"),
        ("--ctx-size",),
        ("--top-k=5",),
        ("stray",),
        ("--metrics", "true"),
        ("--draft-max", "8"),
    )
    for words in slips:
        assert _errors(binary.check(_Case(words=words))) or binary.check(_Case(words=words)).will_not_start
        assert binary.refusal(_Case(words=words)) is not None
