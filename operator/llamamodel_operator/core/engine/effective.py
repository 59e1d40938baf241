"""The settings that a whole command line amounts to, as llama-server ends up with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.core.engine.catalogue import Flag, FlagState
from llamamodel_operator.core.engine.catalogues import CatalogueMatch
from llamamodel_operator.core.engine.values import TRUE_WORDS, is_switch_word
from llamamodel_operator.core.engine.words import Given, plain_spelling, read_words

__all__ = ["EffectiveSetting", "EffectiveSettings"]


@dataclass(frozen=True, kw_only=True)
class EffectiveSetting:
    """One of them: `place` is the field that it comes from."""

    flag: Flag
    values: tuple[str, ...]
    on: bool
    place: str


class EffectiveSettings:
    """The settings of a command line, looked up by any spelling."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        match: CatalogueMatch,
        fields: Mapping[str, str],
        extra_args_from: int | None = None,
        env: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Reads variables, then words: of two that set the same thing, llama-server takes the last one.

        Args: those of `check_combinations`.
        """
        self.match = match
        self._by_name: dict[str, EffectiveSetting] = {}
        self._read_variables(env)
        first = len(words) if extra_args_from is None else extra_args_from
        for item in read_words(words, match.catalogue.find):
            if isinstance(item, Given):
                place = fields.get(item.flag.name) if item.index < first else f"spec.extraArgs[{item.index - first}]"
                self._put(item.flag, item.values, on=not item.negated, place=place or "spec")

    def _read_variables(self, env: Sequence[Mapping[str, Any]]) -> None:
        for index, variable in enumerate(env):
            name, value = str(variable.get("name")), variable.get("value")
            flag = self.match.catalogue.find_env(name)
            if flag is None or flag.env != name or flag.carried or not isinstance(value, str):
                continue
            if flag.arity:
                self._put(flag, (value,), on=True, place=f"spec.env[{index}]")
            elif is_switch_word(value):
                self._put(flag, (), on=value in TRUE_WORDS, place=f"spec.env[{index}]")

    def _put(self, flag: Flag, values: tuple[str, ...], *, on: bool, place: str) -> None:
        self._by_name[flag.name] = EffectiveSetting(flag=flag, values=values, on=on, place=place)

    def get(self, *spellings: str) -> EffectiveSetting | None:
        """The setting of the first spelling that is given and has an effect in this build."""
        for spelling in spellings:
            flag = self.match.catalogue.find(spelling)
            if flag is None or (setting := self._by_name.get(flag.name)) is None:
                continue
            if flag.state in (FlagState.REMOVED, FlagState.WITHOUT_EFFECT):
                continue
            if plain_spelling(spelling) not in flag.negations:
                return setting
        return None

    def text(self, *spellings: str) -> str | None:
        """The value of a setting."""
        setting = self.get(*spellings)
        return setting.values[0] if setting and setting.values else None

    def number(self, *spellings: str) -> int | None:
        """The value of a setting, where it is a whole number of sensible size."""
        text = self.text(*spellings) or ""
        return int(text) if text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() and len(text) < 12 else None

    def is_on(self, *spellings: str) -> bool | None:
        """Whether a setting without value is on; None where nothing says so."""
        setting = self.get(*spellings)
        return setting.on if setting else None

    def place(self, *spellings: str) -> str:
        """Which field a setting comes from."""
        setting = self.get(*spellings)
        return setting.place if setting else "spec"
