"""Flag catalogues: what the llama-server of a given build of llama.cpp takes on its command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Catalogue", "Flag", "FlagState", "ValueType"]


class ValueType(StrEnum):
    """What a flag's value must look like."""

    INTEGER = "integer"
    FLOAT = "float"
    STRING = "string"
    PATH = "path"
    """A file or a folder. Newer builds take several, separated by commas, for --lora and --control-vector, and
    FILE:SCALE for their scaled forms."""
    LIST = "list"
    """Several values, separated by commas."""


class FlagState(StrEnum):
    """Whether a build still acts on a flag."""

    LIVE = "live"
    DEPRECATED = "deprecated"
    """Works, and will not for ever."""
    WITHOUT_EFFECT = "without-effect"
    """Taken and ignored."""
    REMOVED = "removed"
    """Known by name only: the server refuses to start, or exits with a hint."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One setting of llama-server.

    Attributes:
        name: the canonical long spelling, such as --ctx-size.
        aliases: all other spellings that turn the same setting on or set it, such as -c.
        negations: spellings that turn a setting without value off, such as --no-slots.
        env: the environment variable that sets it, such as LLAMA_ARG_CTX_SIZE; None where there is none.
        arity: how many arguments follow: 0, 1 or 2.
        value_type: of each of them, for FILE SCALE of the first; None where arity is 0.
        allowed: the values that are taken, where they are a closed list; each item's, where it takes a LIST.
        words: what is taken besides numbers, such as auto and all for --n-gpu-layers.
        default: what holds where it is not given, as the build states it; None where unknown.
        repeatable: whether giving it twice adds rather than replaces.
        state: whether this build acts on it.
        replacement: what to use instead, where it is deprecated or removed; with a value, where there is one.
        negated_replacement: what to use instead of its negations, where that is another.
        carried: whether the build itself no longer knows the name; older catalogues do.
    """

    name: str
    aliases: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    env: str | None = None
    arity: int = 0
    value_type: ValueType | None = None
    allowed: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    default: str | None = None
    repeatable: bool = False
    state: FlagState = FlagState.LIVE
    replacement: str | None = None
    negated_replacement: str | None = None
    carried: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way to write it."""
        return (self.name, *self.aliases, *self.negations)

    def replacement_of(self, spelling: str) -> str | None:
        """What to use instead of one of its spellings, where it is deprecated or removed."""
        return self.negated_replacement if spelling in self.negations else self.replacement

    @property
    def negative_env(self) -> str | None:
        """The variable that turns it off, whatever its value: LLAMA_ARG_NO_MMAP beside LLAMA_ARG_MMAP.

        llama.cpp: common/arg.cpp, common_arg::get_value_from_env.
        """
        if not self.negations or not self.env or "LLAMA_ARG_" not in self.env:
            return None
        return self.env.replace("LLAMA_ARG_", "LLAMA_ARG_NO_")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What one build takes.

    Attributes:
        build: number of the build, such as 10434 for the tag b10434.
        flags: in the build's own order, then those that only older builds have.
        chat_templates: names of the built-in chat templates, for --chat-template.
        source: what the catalogue was made from.
    """

    build: int
    flags: tuple[Flag, ...]
    chat_templates: frozenset[str] = frozenset()
    source: str = ""
    _by_spelling: Mapping[str, Flag] = field(init=False, repr=False, compare=False)
    _by_env: Mapping[str, Flag] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {spelling: flag for flag in self.flags for spelling in flag.spellings}
        object.__setattr__(self, "_by_spelling", index)
        names = {flag.negative_env: flag for flag in self.flags} | {flag.env: flag for flag in self.flags}
        object.__setattr__(self, "_by_env", {name: flag for name, flag in names.items() if name})

    def __hash__(self) -> int:
        # what is derived from a catalogue is kept by it, and going through all its flags would take longer
        return hash(self.build)

    def find(self, spelling: str) -> Flag | None:
        """The flag that is written so, by name, alias or negation; also a removed one."""
        return self._by_spelling.get(spelling)

    def find_env(self, name: str) -> Flag | None:
        """The flag that this environment variable sets or turns off; also a removed one."""
        return self._by_env.get(name)
