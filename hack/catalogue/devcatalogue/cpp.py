"""As much of C++ as the argument table needs: comments, string literals, brackets, commas."""

import re
from collections.abc import Iterator

from devcatalogue.errors import CatalogueError

__all__ = ["after", "closing", "join_literals", "literals", "split", "without_comments"]

_TOKEN = re.compile(r'R"(\w*)\(.*?\)\1"|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "'": "'"}
_OPENING, _CLOSING = "({[", ")}]"


def without_comments(text: str) -> str:
    """The text with a blank for each comment."""
    return _TOKEN.sub(lambda found: " " if found[0].startswith("/") else found[0], text)


def closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for position, character in _code(text, start):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if not depth:
                return position
    raise CatalogueError(f"a bracket is not closed: {text[start : start + 60]!r}")


def split(text: str) -> list[str]:
    """The parts between the commas that stand in no bracket."""
    parts, depth, begin = [], 0, 0
    for position, character in _code(text, 0):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and not depth:
            parts.append(text[begin:position].strip())
            begin = position + 1
    return [*parts, text[begin:].strip()]


def after(text: str, character: str) -> str:
    """What follows the first such character that stands in no literal."""
    for position, found in _code(text, 0):
        if found == character:
            return text[position + 1 :]
    return ""


def literals(text: str) -> list[str]:
    """The string literals in the text, unescaped, one by one."""
    return [_unescape(found[1]) for found in _LITERAL.finditer(text)]


def join_literals(text: str) -> str | None:
    """The one string that adjacent literals make; None where there is anything else."""
    if _LITERAL.sub("", text).strip():
        return None
    return "".join(literals(text))


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)


def _code(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Positions and characters that are neither in a literal nor in a comment."""
    position = start
    while position < len(text):
        if found := _TOKEN.match(text, position):
            position = found.end()
            continue
        yield position, text[position]
        position += 1
