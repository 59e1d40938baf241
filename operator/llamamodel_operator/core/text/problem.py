"""What a check has to say about a text, with the place in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamamodel_operator.api.findings import Severity

__all__ = ["LONGEST_SHOWN", "MAX_TEXT_BYTES", "Problem", "at", "text_problem"]

MAX_TEXT_BYTES = 1024 * 1024
"""Of a text that is checked at all; a ConfigMap holds no more."""

LONGEST_SHOWN = 40
"""Characters of a user's text that a message repeats."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""All but tab, line feed and carriage return."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a text, or that is not as one would think.

    Attributes:
        message: what was found, what was expected, what to do; without the place.
        severity: an error means that llama-server would refuse it, or that a rule of ours does.
        line: from 1; None where the whole text is meant.
        column: from 1, in characters.
    """

    message: str
    severity: Severity = Severity.ERROR
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.message
        place = f"line {self.line}" if self.column is None else f"line {self.line}, column {self.column}"
        return f"{place}: {self.message}"


def at(text: str, offset: int, message: str, *, severity: Severity = Severity.ERROR) -> Problem:
    """A problem at a character of the text."""
    line_start = text.rfind("\n", 0, offset) + 1
    return Problem(
        message=message, severity=severity, line=text.count("\n", 0, offset) + 1, column=offset - line_start + 1
    )


def text_problem(text: str, *, what: str, max_bytes: int = MAX_TEXT_BYTES) -> Problem | None:
    """What no text may be, whatever it is for: too long, not Unicode, with control characters."""
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        return at(text, error.start, f"found half a surrogate pair, expected Unicode text: save the {what} as UTF-8")
    if size_bytes > max_bytes:
        return Problem(message=f"the {what} has {size_bytes:,} bytes, expected {max_bytes:,} at most: shorten it")
    if found := _CONTROL.search(text):
        return at(text, found.start(), f"found the control character U+{ord(found[0]):04X}: remove it")
    return None
