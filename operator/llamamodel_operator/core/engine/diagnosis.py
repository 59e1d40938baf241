"""From the log of a llama-server that ended, and its exit code, to why: pure, over the table of telling lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.engine.telling_lines import REMEDIES, TELLING_LINES, TellingLine

__all__ = ["Diagnosis", "diagnose", "shown_line"]

_ILLEGAL_INSTRUCTION_EXIT = 132
"""128 + SIGILL."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(
    r"\s*(?:\d[\d.]* +)?(?:[EWIDF] +)?(?:[a-z]{3,5} +)?(?:[\w:~()]+: +){0,3}(?:"
    + "|".join(f"(?P<line{index}>{line.pattern})" for index, line in enumerate(TELLING_LINES))
    + ")"
)
"""Level letters and components as in common/log.cpp of llama.cpp."""
_SHOWN = re.compile(r"^(?:\d[\d.]* +)?(?:[EWIDF] +)?")
_LONGEST_LINE = 400
"""Characters that are looked at and repeated; a line may hold what a user sent."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a server ended.

    Attributes:
        message: the cause, in a sentence.
        line: of the log, without time, level and colours; empty where none tells.
        remedy: what to do; empty where nobody knows.
        sure: whether nothing else in the log could tell more.
    """

    reason: Reason
    message: str
    line: str = ""
    remedy: str = ""
    sure: bool = True

    @property
    def sentence(self) -> str:
        """All of it."""
        said = f'{self.message} ("{self.line}")' if self.line else self.message
        return f"{said}: {self.remedy}" if self.remedy else said


def diagnose(
    log: str, *, exit_code: int, files: Mapping[str, str], default_field: str = "spec.model.pvc"
) -> Diagnosis | None:
    """Why it ended; None where nothing tells.

    Args:
        log: what there is of it, oldest line first; may have gaps.
        exit_code: of the container, 128 + N where signal N ended it.
        files: the files of the command line, each with the field of the spec that names it.
        default_field: that a file is blamed on which the log does not name.
    """
    if exit_code == _ILLEGAL_INSTRUCTION_EXIT:
        return Diagnosis(
            reason=Reason.ILLEGAL_INSTRUCTION,
            message="the node's CPU lacks an instruction that llama-server was built with",
            remedy=REMEDIES[Reason.ILLEGAL_INSTRUCTION],
        )
    lines = [_COLOUR.sub("", line)[:_LONGEST_LINE] for line in log.splitlines()]
    best: tuple[int, TellingLine] | None = None
    for place, text in enumerate(lines):
        found = _LINE.match(text)
        if found is None:
            continue
        telling = TELLING_LINES[int(str(found.lastgroup)[len("line") :])]
        if best is None or not telling.weak or (best[1].weak and _rank(telling) < _rank(best[1])):
            best = place, telling
    if best is None:
        return None
    place, telling = best
    field = _field(lines[place:], files) or _field(lines[place::-1], files) or default_field
    return Diagnosis(
        reason=telling.reason,
        message=telling.cause.format(field=field),
        line=shown_line(lines[place]),
        remedy=REMEDIES[telling.reason].format(field=field),
        sure=not telling.weak,
    )


def shown_line(line: str) -> str:
    """A line of the log without colours, time and level."""
    return _SHOWN.sub("", _COLOUR.sub("", line).strip())[:_LONGEST_LINE]


def _rank(line: TellingLine) -> int:
    return TELLING_LINES.index(line)


def _field(lines: list[str], files: Mapping[str, str]) -> str:
    """Of the file that is named first from the telling line on; empty where none is."""
    longest_first = sorted(files, key=len, reverse=True)
    return next((files[path] for line in lines for path in longest_first if path in line), "")
