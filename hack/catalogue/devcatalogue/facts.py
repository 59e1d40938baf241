"""From an argument as it is described to the facts that a catalogue stores."""

import re
from collections.abc import Iterable, Mapping

from devcatalogue import curated
from devcatalogue.defaults import UNKNOWN
from devcatalogue.entry import Entry, Handler
from llamamodel_operator.core.engine.catalogue import Flag, FlagState, ValueType

__all__ = ["flag"]

_REMOVED = "the argument has been removed"
_DEPRECATED = re.compile(r"\bDEPRECATED\b", re.IGNORECASE)
_FLAG = re.compile(r"--[a-z][\w-]*[\w](?![\w*-])")
_ALLOWED = re.compile(r"allowed values: ([^()]*)")
_BULLET = re.compile(r"(?:^|\s)- ([\w+-]+)(?: \(default\))?: ")
_CHOICE = re.compile(r"[{\[<]([\w+-]+(?:[,|][\w+-]+)+)[}\]>]")
_ITEMS = re.compile(r"[\w-]+(?:,[\w-]+)+")
_MORE = re.compile(r",\.\.\.?>?$")
_WORDS = re.compile(r"either an exact number, '(\w+)', or '(\w+)'")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?=$|[,; )])")
_WORD = re.compile(r"'([^']*)'|([^\s,;()']+)(?=$|\)|, requires|, -?\d)")
_MARKED = re.compile(r"(?:^|\s)- (\w+) \(default\):")
_SWITCH = re.compile(r"(?:prefill )?(enabled|disabled|true|false)(?=[),\[]|$)")
_STATES = {"true": "enabled", "false": "disabled", "enabled": "enabled", "disabled": "disabled"}
_NOTHING = frozenset({"", "none", "unused", "disabled", UNKNOWN})


def flag(entry: Entry) -> Flag:
    """The facts about one argument."""
    name = _name(entry)
    removed = _REMOVED in entry.text
    value_type = _value_type(entry)
    allowed = _allowed(entry, value_type)
    state = _state(entry)
    return Flag(
        name=name,
        aliases=tuple(spelling for spelling in entry.spellings if spelling != name),
        negations=entry.negations,
        env=entry.env,
        arity=len(entry.hints),
        value_type=value_type,
        allowed=() if removed else allowed,
        words=() if removed else _words(entry, value_type),
        default=None if removed else _default(entry, value_type, allowed),
        repeatable=not removed and _appends(entry),
        state=state,
        replacement=None if state is FlagState.LIVE else _replacement(entry),
        negated_replacement=None if state is FlagState.LIVE else _first(curated.REPLACEMENTS, entry.negations),
    )


def _name(entry: Entry) -> str:
    longs = [spelling for spelling in entry.spellings if spelling.startswith("--")]
    for spelling in longs:
        if spelling in curated.CANONICAL or spelling.startswith("--spec-"):
            return spelling
    return longs[-1] if longs else entry.spellings[-1]


def _value_type(entry: Entry) -> ValueType | None:
    if not entry.hints:
        return None
    hint = entry.hints[0]
    if _words(entry, ValueType.INTEGER):
        return ValueType.INTEGER
    if hint in curated.NUMBER_HINTS:
        fraction = bool(curated.FLOATS & set(entry.spellings)) and entry.handler is not Handler.INTEGER
        return ValueType.FLOAT if fraction or entry.handler is Handler.FLOAT else ValueType.INTEGER
    if hint in curated.FLOAT_HINTS:
        return ValueType.FLOAT
    if hint in curated.PATH_HINTS:
        return ValueType.PATH
    if hint in curated.LIST_HINTS or _MORE.search(hint) or _ITEMS.fullmatch(hint):
        return ValueType.LIST
    return ValueType.STRING


def _allowed(entry: Entry, value_type: ValueType | None) -> tuple[str, ...]:
    if value_type is None:
        return ()
    hint = entry.hints[0]
    if hint in curated.SWITCH_WORDS:
        return curated.SWITCH_WORDS[hint]
    if closed := _CHOICE.fullmatch(hint):
        return tuple(re.split(r"[,|]", closed[1]))
    if _ITEMS.fullmatch(hint):
        return tuple(hint.split(","))
    if listed := _ALLOWED.search(entry.text):
        return tuple(value.strip() for value in listed[1].split(",") if value.strip())
    if value_type is ValueType.STRING and (bullets := _BULLET.findall(entry.text)):
        default = re.search(r"\(default: (\w+)\)", entry.text)
        more = (default[1],) if default and default[1] not in bullets else ()
        return (*bullets, *more)
    return ()


def _words(entry: Entry, value_type: ValueType | None) -> tuple[str, ...]:
    found = _WORDS.search(entry.text) if value_type is ValueType.INTEGER else None
    return found.groups() if found else ()


def _default(entry: Entry, value_type: ValueType | None, allowed: tuple[str, ...]) -> str | None:
    """One number or word; prose such as "loaded from model" is none."""
    stated = entry.text.partition("default: ")[2]
    if value_type is None:
        # Beside --no-… some builds state what holds for the setting, others what holds for its negation.
        switch = None if _name(entry).startswith("--no-") else _SWITCH.match(stated)
        return _STATES[switch[1]] if switch else None
    if marked := _MARKED.search(entry.text):
        return marked[1]
    if number := _NUMBER.match(stated):
        return number[0]
    if not (word := _WORD.match(stated)):
        return None
    value = (word[1] or word[2] or "").strip('"')
    if allowed or value_type in {ValueType.INTEGER, ValueType.FLOAT}:
        return value if value in (*allowed, *_words(entry, value_type)) else None
    return None if value in _NOTHING else value


def _appends(entry: Entry) -> bool:
    return entry.appends is not False and bool(curated.APPENDING & set(entry.spellings))


def _state(entry: Entry) -> FlagState:
    if _REMOVED in entry.text:
        return FlagState.REMOVED
    if entry.ignored or (_DEPRECATED.search(entry.text) and curated.NO_EFFECT & set(entry.spellings)):
        return FlagState.WITHOUT_EFFECT
    return FlagState.DEPRECATED if _DEPRECATED.search(entry.text) else FlagState.LIVE


def _replacement(entry: Entry) -> str | None:
    if known := _first(curated.REPLACEMENTS, entry.spellings):
        return known
    others = [found for found in _FLAG.findall(entry.text) if found not in entry.spellings]
    return others[0] if others else None


def _first(table: Mapping[str, str], spellings: Iterable[str]) -> str | None:
    return next((table[spelling] for spelling in spellings if spelling in table), None)
