"""The catalogues that come with the operator, one JSON file a build, made by `python3 hack/catalogue`."""

from __future__ import annotations

import functools
import importlib.resources
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState, ValueType

__all__ = ["CatalogueMatch", "Catalogues", "parse_catalogue", "shipped_catalogues"]


@dataclass(frozen=True, kw_only=True)
class CatalogueMatch:
    """What is known about the flags of a build, and how well.

    Attributes:
        catalogue: to render with; the exact one, else the nearest older, else the nearest newer.
        build: the number that was asked for; None where nobody knows it.
        exact: whether the catalogue is that of the build.
        neighbours: the exact one alone; else the nearest older and the nearest newer, as far as there are any.
    """

    catalogue: Catalogue
    build: int | None
    exact: bool
    neighbours: tuple[Catalogue, ...]

    def find(self, spelling: str) -> Flag | None:
        """The flag in the catalogue to render with."""
        return self.catalogue.find(spelling)

    def agree(self, spelling: str) -> bool:
        """Whether what the catalogue says about a spelling, also that there is none, can be relied on.

        It can where the catalogue is exact, or where the next older and the next newer build say the same. Only
        then may it be an error.
        """
        if self.exact:
            return True
        if len(self.neighbours) < 2:
            return False
        older, newer = self.neighbours
        return _facts(older, spelling) == _facts(newer, spelling)


class Catalogues:
    """Catalogues by build. Each is read when it is first asked for."""

    def __init__(self, texts: Mapping[int, Any]) -> None:
        """`texts` has, for each build, an object with `read_text()`, such as a file."""
        if not texts:
            raise ValueError("no catalogue: at least one build is needed")
        self._texts = dict(sorted(texts.items()))
        self._loaded: dict[int, Catalogue] = {}

    @property
    def builds(self) -> tuple[int, ...]:
        """The builds, oldest first."""
        return tuple(self._texts)

    def get(self, build: int) -> Catalogue:
        """The catalogue of exactly this build; KeyError where there is none."""
        if build not in self._loaded:
            self._loaded[build] = parse_catalogue(self._texts[build].read_text(encoding="utf-8"))
        return self._loaded[build]

    def match(self, build: int | None) -> CatalogueMatch:
        """What is known about a build; None is taken for the newest, and never exact."""
        builds = self.builds
        if build in self._texts:
            catalogue = self.get(build)
            return CatalogueMatch(catalogue=catalogue, build=build, exact=True, neighbours=(catalogue,))
        position = len(builds) if build is None else bisect_left(builds, build)
        nearest = builds[max(0, position - 1) : position + 1] if position else builds[:1]
        neighbours = tuple(self.get(number) for number in nearest)
        return CatalogueMatch(catalogue=neighbours[0], build=build, exact=False, neighbours=neighbours)

    def nearest_with(self, spelling: str, build: int | None) -> Catalogue | None:
        """The catalogue nearest to a build whose llama-server takes this spelling; None where none does."""
        return self._nearest(build, lambda catalogue: catalogue.find(spelling))

    def nearest_with_env(self, name: str, build: int | None) -> Catalogue | None:
        """The catalogue nearest to a build whose llama-server reads this variable; None where none does."""
        return self._nearest(build, lambda catalogue: catalogue.find_env(name))

    def _nearest(self, build: int | None, find: Callable[[Catalogue], Flag | None]) -> Catalogue | None:
        wanted = self.builds[-1] if build is None else build
        for number in sorted(self.builds, key=lambda number: (abs(number - wanted), -number)):
            flag = find(self.get(number))
            if flag is not None and flag.state is not FlagState.REMOVED:
                return self.get(number)
        return None


@functools.cache
def shipped_catalogues() -> Catalogues:
    """Those in this package."""
    files = importlib.resources.files(__name__)
    return Catalogues(
        {
            int(file.name.removeprefix("b").removesuffix(".json")): file
            for file in files.iterdir()
            if file.name.endswith(".json")
        }
    )


def parse_catalogue(text: str) -> Catalogue:
    """A catalogue from its JSON."""
    document = json.loads(text)
    return Catalogue(
        build=document["build"],
        source=document["source"],
        chat_templates=frozenset(document["chat_templates"]),
        flags=tuple(_flag(entry) for entry in document["flags"]),
    )


def _flag(entry: Mapping[str, Any]) -> Flag:
    value_type = entry.get("type")
    return Flag(
        name=entry["name"],
        aliases=tuple(entry.get("aliases", ())),
        negations=tuple(entry.get("negations", ())),
        env=entry.get("env"),
        arity=entry.get("arity", 1 if value_type else 0),
        value_type=ValueType(value_type) if value_type else None,
        allowed=tuple(entry.get("allowed", ())),
        words=tuple(entry.get("words", ())),
        default=entry.get("default"),
        repeatable=entry.get("repeatable", False),
        state=FlagState(entry.get("state", FlagState.LIVE)),
        replacement=entry.get("replacement"),
        negated_replacement=entry.get("negated_replacement"),
        carried=entry.get("carried", False),
    )


def _facts(catalogue: Catalogue, spelling: str) -> tuple[object, ...] | None:
    """What a check needs to know about a spelling; None where the build does not have it and never had."""
    flag = catalogue.find(spelling)
    if flag is None:
        return None
    if flag.state is FlagState.REMOVED:
        return (FlagState.REMOVED,)
    return (flag.state, spelling in flag.negations, flag.arity, flag.value_type, flag.allowed, flag.words)
