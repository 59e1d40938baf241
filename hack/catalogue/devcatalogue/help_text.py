"""Reads the output of `llama-server --help` (llama.cpp: common/arg.cpp, common_arg::to_string)."""

import re
from collections.abc import Iterator, Sequence

from devcatalogue.entry import Entry
from devcatalogue.errors import CatalogueError

__all__ = ["chat_templates", "parse_help"]

_TEXT_COLUMN = 40
_GAP = 3
_SPELLING = re.compile(r"-{1,2}[A-Za-z][\w.-]*")
_ENV = re.compile(r"\(env: (\w+)\)")
_TEMPLATES = re.compile(r"list of built-in templates: (.*?)(?: \(env:|$)")
_FEWEST = 50


def parse_help(text: str) -> list[Entry]:
    """All arguments, in the order of the text. Raises CatalogueError where it is no help of llama-server."""
    entries = [_entry(lines) for lines in _blocks(text.splitlines())]
    if len(entries) < _FEWEST:
        raise CatalogueError(
            f"expected the output of `llama-server --help`, found {len(entries)} arguments in {len(text)} characters"
        )
    return entries


def chat_templates(entries: Sequence[Entry]) -> frozenset[str]:
    """Names of the built-in chat templates, as the text of --chat-template lists them."""
    for entry in entries:
        if "--chat-template" in entry.spellings and (found := _TEMPLATES.search(entry.text)):
            return frozenset(name.strip() for name in found[1].split(",") if name.strip())
    raise CatalogueError("no list of built-in templates in the text of --chat-template")


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in lines:
        if _SPELLING.match(line):
            if block:
                yield block
            block = [line]
        elif line.startswith(" " * _TEXT_COLUMN) and block:
            block.append(line)
        elif line.startswith("-----") and block:
            yield block
            block = []
    if block:
        yield block


def _entry(lines: Sequence[str]) -> Entry:
    # A head that comes near the column stands alone on its line; else it is padded, and the text begins there.
    head, text = lines[0].rstrip(), ""
    if lines[0][_TEXT_COLUMN - _GAP : _TEXT_COLUMN].isspace():
        head, text = lines[0][:_TEXT_COLUMN].rstrip(), lines[0][_TEXT_COLUMN:]
    help_text = " ".join([text, *(line.strip() for line in lines[1:])]).strip()
    spellings: list[str] = []
    rest = head
    while found := _SPELLING.match(rest):
        spellings.append(found[0])
        comma, rest = rest[found.end() :].startswith(","), rest[found.end() :].lstrip(", ")
        if not comma:
            break
    env = _ENV.search(help_text)
    positive, negative = split_negations(spellings)
    return Entry(
        spellings=positive,
        negations=negative,
        hints=_hints(rest.strip()),
        text=help_text,
        env=env[1] if env else None,
    )


def split_negations(spellings: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The help prints negations after the rest. They begin with -n and stand beside a spelling without it."""
    longs = {spelling for spelling in spellings if spelling.startswith("--")}
    negated = {spelling for spelling in longs if spelling.startswith("--no-") and longs - {spelling}}
    if not negated or negated == longs:
        return tuple(spellings), ()
    first = min(spellings.index(spelling) for spelling in negated)
    while first and re.match(r"-n", spellings[first - 1]):
        first -= 1
    return tuple(spellings[:first]), tuple(spellings[first:])


def _hints(rest: str) -> tuple[str, ...]:
    if not rest:
        return ()
    # Only these have two values; every other hint may contain blanks ("<tensor name pattern>=<buffer type>,...").
    two = re.fullmatch(r"(FNAME|START) (SCALE|END)", rest)
    return (two[1], two[2]) if two else (rest,)
