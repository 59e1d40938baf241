"""Regular expressions for tensors' names, as std::regex_search reads them, that cannot run for ever."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["UnreadablePatternError", "matcher_of"]

LONGEST = 1000
MOST_LOOSE_PARTS = 4
"""Repetitions and options in one pattern: each may make a search longer by the length of a name."""
CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "d": "0-9",
    "digit": "0-9",
    "lower": "a-z",
    "punct": "!-/:-@\\[-`{-~",
    "s": " \\t\\n\\r\\f\\v",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "w": "a-zA-Z0-9_",
    "xdigit": "0-9a-fA-F",
}
NAMED_CLASS = re.compile(r"\[:([a-z]+):\]")
COUNT = re.compile(r"\{([0-9]{1,3})(?:(,)([0-9]{0,3}))?\}")


class UnreadablePatternError(ValueError):
    """The pattern is not one, or one whose search may take too long."""


def matcher_of(expression: str) -> Callable[[str], object]:
    """A search for the expression; a search in a name takes microseconds, whatever the expression.

    std::regex is ECMAScript's: no lookbehind, no named groups, no possessive quantifiers. Of these, and of
    repetitions within repetitions, which can take exponential time, nothing is tried.

    Raises:
        UnreadablePatternError: saying what of it is not supported.
    """
    if len(expression) > LONGEST:
        raise UnreadablePatternError(f"it has {len(expression)} characters, expected at most {LONGEST}")
    try:
        return re.compile(_translated(expression), re.ASCII).search
    except (re.error, OverflowError, RecursionError) as error:
        raise UnreadablePatternError(f"it is not a regular expression: {error}") from error


def _translated(expression: str) -> str:
    """The same for Python, checked on the way."""
    out: list[str] = []
    loose, position = 0, 0
    groups: list[bool] = []  # whether each open group has alternatives or repetitions
    complex_atom = False  # whether the last closed group had
    while position < len(expression):
        character = expression[position]
        if character == "\\":
            out.append(_escape(expression, position))
            position += 2
            complex_atom = False
        elif character == "[":
            text, position = _character_class(expression, position)
            out.append(text)
            complex_atom = False
        elif character == "(":
            opening = next((kind for kind in ("(?:", "(?=", "(?!") if expression.startswith(kind, position)), "(")
            if opening == "(" and expression.startswith("(?", position):
                raise UnreadablePatternError("std::regex knows no group that starts with (? but (?:, (?= and (?!")
            groups.append(False)
            out.append(opening)
            position += len(opening)
        elif character == ")":
            complex_atom = groups.pop() if groups else False
            if groups and complex_atom:
                groups[-1] = True
            out.append(")")
            position += 1
        elif character == "|":
            if groups:
                groups[-1] = True
            out.append("|")
            position += 1
        elif character in "*+?{":
            text, position, unbounded = _quantifier(expression, position)
            loose += unbounded
            if complex_atom and unbounded:
                raise UnreadablePatternError("a repetition of alternatives or of repetitions")
            if groups:
                groups[-1] = groups[-1] or unbounded
            out.append(text)
        else:
            out.append(r"\Z" if character == "$" else character)
            position += 1
            complex_atom = False
        if loose > MOST_LOOSE_PARTS:
            raise UnreadablePatternError(f"more than {MOST_LOOSE_PARTS} repetitions")
    return "".join(out)


def _escape(expression: str, position: int) -> str:
    following = expression[position + 1 : position + 2]
    if not following:
        raise UnreadablePatternError("a backslash at its end")
    if following in "bBdDfnrsStvwW" or not following.isalnum():
        return "\\" + following
    raise UnreadablePatternError(f"\\{following}")


def _character_class(expression: str, position: int) -> tuple[str, int]:
    """A bracket expression with its end; [[:digit:]] is spelled out, which Python does not know."""
    index = position + 1
    out = ["["]
    if expression.startswith("^", index):
        out.append("^")
        index += 1
    start = index
    while index < len(expression):
        named = NAMED_CLASS.match(expression, index)
        character = expression[index]
        if named is not None:
            if named[1] not in CLASSES:
                raise UnreadablePatternError(f"no class of characters is called {named[1]}")
            out.append(CLASSES[named[1]])
            index = named.end()
        elif character == "]":
            if index == start:
                raise UnreadablePatternError("an empty class of characters")
            return "".join([*out, "]"]), index + 1
        elif character == "\\":
            out.append(_escape(expression, index))
            index += 2
        elif character in "[&~|":
            if expression.startswith(("[.", "[="), index):
                raise UnreadablePatternError("a collating class of characters")
            out.append("\\" + character)
            index += 1
        else:
            out.append(character)
            index += 1
    raise UnreadablePatternError("a class of characters without its end")


def _quantifier(expression: str, position: int) -> tuple[str, int, bool]:
    """The quantifier, where it ends, and whether it leaves a choice of how often."""
    if expression[position] == "{":
        match = COUNT.match(expression, position)
        if match is None:
            raise UnreadablePatternError("a { without a count")
        least, most = int(match[1]), int(match[3] or 0) if match[3] else None
        text, end = match[0], match.end()
        choice = match[2] is not None and most != least
    else:
        text, end, choice = expression[position], position + 1, True
    if expression.startswith("?", end):
        text, end = text + "?", end + 1
    if expression.startswith(("*", "+", "{", "?"), end):
        raise UnreadablePatternError("a quantifier of a quantifier")
    return text, end, choice
