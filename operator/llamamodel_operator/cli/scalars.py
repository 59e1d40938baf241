"""What a word of YAML means to kubectl: go-yaml's resolve.go, which is YAML 1.1 but for dates, which stay text."""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

__all__ = ["MERGE", "TAG", "MergeKey", "MistakeError", "read_scalar", "unknown_tag"]

TAG = "tag:yaml.org,2002:"
MERGE = "<<"


class MistakeError(Exception):
    """Something in a file that is refused; the message is one line, for `line` of the file."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class MergeKey:
    """The plain scalar << in the place of a key."""


_WORDS: dict[str, bool | None] = {"~": None, "": None}
for _word, _meaning in (
    ("null", None),
    ("y", True),
    ("yes", True),
    ("true", True),
    ("on", True),
    ("n", False),
    ("no", False),
    ("false", False),
    ("off", False),
):
    _WORDS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _meaning)
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def read_scalar(event: Any, line: int, *, is_key: bool) -> Any:
    """The value of a scalar event of the parser. Raises MistakeError where JSON has no such value."""
    quoted = event.tag is None and not event.implicit[0]
    if quoted or event.tag in ("!", f"{TAG}str"):
        return event.value
    if event.tag is not None and event.tag not in {f"{TAG}{kind}" for kind in ("null", "bool", "int", "float")}:
        unknown_tag(event.tag, line)
    if is_key and event.value == MERGE:
        return MergeKey()
    return _plain(event.value, line)


def _plain(text: str, line: int) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits) and (whole := _integer(digits)) is not None:
        return whole
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        return text if math.isinf(number) else number
    if _NOT_FINITE.fullmatch(text):
        raise MistakeError(
            f"{text} cannot be written in JSON, which Kubernetes stores: put it into quotes, or remove it", line
        )
    return text


def _integer(digits: str) -> int | None:
    """The number, where it fits into 64 bits; others are read as floating point numbers."""
    if len(digits) > 70:
        return None
    sign, bare = (-1 if digits[0] == "-" else 1), digits.lstrip("+-").lower()
    base = {"0x": 16, "0b": 2, "0o": 8}.get(bare[:2]) or (8 if bare[0] == "0" else 10)
    number = sign * int(bare[2:] if bare[1:2] in ("x", "b", "o") else bare, base)
    return number if -(2**63) <= number < 2**64 else None


def unknown_tag(tag: str, line: int) -> NoReturn:
    shown = tag.replace(TAG, "!!")
    raise MistakeError(f"the tag {shown} means nothing to Kubernetes: remove it", line)
