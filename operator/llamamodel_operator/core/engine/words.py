"""Words of a command line, read as llama-server reads them: flags, the values that follow, what is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llamamodel_operator.core.engine.catalogue import Flag

__all__ = ["Given", "Stray", "Unknown", "looks_like_flag", "plain_spelling", "read_words", "shown"]

_LONGEST_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Given:
    """A flag with its values.

    Attributes:
        index: which word it is, from 0.
        spelling: as written.
        flag: what it is.
        values: what follows; fewer than the arity where some are missing.
        instead: the word that stands where a value is missing; None at the end of the list.
    """

    index: int
    spelling: str
    flag: Flag
    values: tuple[str, ...] = ()
    instead: str | None = None

    @property
    def missing(self) -> bool:
        """Whether it has fewer values than it needs."""
        return len(self.values) < self.arity

    @property
    def arity(self) -> int:
        """How many values it needs; the form that turns a setting off needs none."""
        return 0 if self.negated else self.flag.arity

    @property
    def negated(self) -> bool:
        """Whether it is written in the form that turns the setting off."""
        return plain_spelling(self.spelling) in self.flag.negations


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A word that looks like a flag and is none, with the words up to the next flag."""

    index: int
    spelling: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stray:
    """A word that no flag takes as its value. `after` is the flag before it."""

    index: int
    word: str
    after: Given | None = None


def plain_spelling(word: str) -> str:
    """The spelling that llama-server looks up: in words that begin with two dashes it reads `_` as `-`.

    Source: common/arg.cpp, common_params_parse_ex.
    """
    return word.replace("_", "-") if word.startswith("--") else word


def looks_like_flag(word: str) -> bool:
    """Whether a word is meant as a flag: it begins with a dash, and is no negative number."""
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")


def read_words(words: Sequence[str], find: Callable[[str], Flag | None]) -> Iterator[Given | Unknown | Stray]:
    """Reads a list of words.

    llama-server takes as many words after a flag as the flag needs, whatever they are: `--seed -1` is a value, and
    in `--alias --metrics` so is --metrics. The second is never meant, so a known flag in the place of a value is
    taken as a flag here, and the value as missing. Words after an unknown flag belong to it as long as they look
    like none themselves.

    Args:
        words: one for each argument of the container.
        find: the flag of a spelling.
    """
    index, last = 0, None
    while index < len(words):
        word = words[index]
        flag = find(plain_spelling(word))
        if flag is not None:
            last = _with_values(words, index, flag, find)
            yield last
            index += 1 + len(last.values)
        elif looks_like_flag(word):
            end = index + 1
            joined = "=" in word or any(c.isspace() for c in word)  # has its value with it
            while not joined and end < len(words) and not looks_like_flag(words[end]):
                end += 1
            yield Unknown(index=index, spelling=word, values=tuple(words[index + 1 : end]))
            index, last = end, None
        else:
            yield Stray(index=index, word=word, after=last)
            index += 1


def _with_values(words: Sequence[str], index: int, flag: Flag, find: Callable[[str], Flag | None]) -> Given:
    values: list[str] = []
    instead = None
    arity = 0 if plain_spelling(words[index]) in flag.negations else flag.arity
    for word in words[index + 1 : index + 1 + arity]:
        if find(plain_spelling(word)) is not None:
            instead = word
            break
        values.append(word)
    return Given(index=index, spelling=words[index], flag=flag, values=tuple(values), instead=instead)


def shown(text: str) -> str:
    """Text for a message: in quotes, on one line, shortened, without control characters."""
    short = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    if short.isprintable():
        return f'"{short}"'
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in short) + '"'
