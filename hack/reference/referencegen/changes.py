"""What changed in the command line of llama-server from one build to the next."""

from __future__ import annotations

from dataclasses import dataclass

from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState

__all__ = ["Changes", "Replaced", "Respelled", "Revalued", "changes_between", "taken"]


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A flag, and what to use instead; None where there is nothing."""

    name: str
    replacement: str | None


@dataclass(frozen=True, kw_only=True)
class Respelled:
    """A flag that is written in more or in fewer ways; `before` and `name` are its older and its newer name."""

    before: str
    name: str
    new: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Revalued:
    """A flag that takes other values, both in words."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the newer build does otherwise.

    Attributes:
        added: names of flags that the older build has under no name.
        removed: flags that the newer build takes under no name.
        deprecated: flags that still work and will not for ever, as is new.
        without_effect: names of flags that are taken and ignored, as is new.
        respelled: flags with other names, besides or instead.
        revalued: flags with other values.
        chat_templates: built-in chat templates that are new.
        chat_templates_gone: those that there are no more.
    """

    added: tuple[str, ...]
    removed: tuple[Replaced, ...]
    deprecated: tuple[Replaced, ...]
    without_effect: tuple[str, ...]
    respelled: tuple[Respelled, ...]
    revalued: tuple[Revalued, ...]
    chat_templates: tuple[str, ...]
    chat_templates_gone: tuple[str, ...]


def taken(catalogue: Catalogue) -> tuple[Flag, ...]:
    """The flags that a build takes; others it knows by name only."""
    return tuple(flag for flag in catalogue.flags if flag.state is not FlagState.REMOVED)


def changes_between(older: Catalogue, newer: Catalogue) -> Changes:
    """What is different in the newer build."""
    pairs = [(old, new) for new in taken(newer) if (old := _counterpart(new, older))]
    return Changes(
        added=tuple(new.name for new in taken(newer) if not _counterpart(new, older)),
        removed=tuple(
            Replaced(name=old.name, replacement=known.replacement if (known := newer.find(old.name)) else None)
            for old in taken(older)
            if not _counterpart(old, newer)
        ),
        deprecated=tuple(
            Replaced(name=new.name, replacement=new.replacement)
            for old, new in pairs
            if new.state is FlagState.DEPRECATED is not old.state
        ),
        without_effect=tuple(new.name for old, new in pairs if new.state is FlagState.WITHOUT_EFFECT is not old.state),
        respelled=tuple(
            found
            for old, new in pairs
            if (found := Respelled(before=old.name, name=new.name, new=_only(new, older), gone=_only(old, newer)))
            and (found.new or found.gone)
        ),
        revalued=tuple(
            Revalued(name=new.name, before=_values(old), after=_values(new))
            for old, new in pairs
            if _values(old) != _values(new)
        ),
        chat_templates=tuple(sorted(newer.chat_templates - older.chat_templates)),
        chat_templates_gone=tuple(sorted(older.chat_templates - newer.chat_templates)),
    )


def _takes(catalogue: Catalogue, spelling: str) -> Flag | None:
    flag = catalogue.find(spelling)
    return flag if flag and flag.state is not FlagState.REMOVED else None


def _counterpart(flag: Flag, catalogue: Catalogue) -> Flag | None:
    """The same flag in another build: it shares a spelling, and is taken there."""
    return next((found for spelling in flag.spellings if (found := _takes(catalogue, spelling))), None)


def _only(flag: Flag, other: Catalogue) -> tuple[str, ...]:
    """Spellings of a flag that another build does not take."""
    return tuple(spelling for spelling in flag.spellings if not _takes(other, spelling))


def _values(flag: Flag) -> str:
    """What a flag takes, in words."""
    if flag.arity == 0:
        return "no value"
    if flag.allowed:
        return "one of " + ", ".join(flag.allowed)
    kind = flag.value_type.value if flag.value_type else "any value"
    words = f", or {', '.join(flag.words)}" if flag.words else ""
    return f"{'two values, ' if flag.arity > 1 else ''}{kind}{words}"
