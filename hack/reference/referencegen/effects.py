"""What a spec makes of the command line, build by build, and what a field adds to it or takes from it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llamamodel_operator.api.findings import FindingCode
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.argv import build_arguments
from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.settings import LORA_SCALE_VARIABLE, Inputs
from llamamodel_operator.core.engine.words import Stray, read_words
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.objects.deployment import TEXTS, file_path
from llamamodel_operator.core.texts import Texts, plan_texts, referenced_keys
from referencegen.examples import Example, examples, minimal_spec, spec_fields

__all__ = [
    "VALUE",
    "Effect",
    "Rendered",
    "Row",
    "builds_from_to",
    "effect",
    "effect_table",
    "minimal_command",
    "render",
    "said",
]

VALUE = "VALUE"
"""Stands in the table for the field's own value."""

Words: TypeAlias = tuple[str, ...]
"""A flag and its values."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a field does to the command line of one build.

    Attributes:
        added: flags with their values that are there with the field alone.
        removed: those that are there without it alone.
        unsupported: whether the build has no flag for it, which is a finding.
    """

    added: tuple[Words, ...]
    removed: tuple[Words, ...]
    unsupported: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    def phrases(self) -> tuple[str, ...]:
        """Each flag as one writes it; `without FLAG` for those that are not there."""
        return (
            *(" ".join(words) for words in self.added),
            *(f"without {words[0]}" for words in self.removed),
            *(["unsupported"] if self.unsupported else []),
        )


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A command line.

    Attributes:
        words: of the container's arguments, as the server gets them.
        texts: files that they refer to.
        unsupported: paths of fields that the build has no flag for.
    """

    words: Words
    texts: Texts
    unsupported: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Values of a field that do the same in every build.

    Attributes:
        values: of the field; VALUE stands for each of them in the effects.
        effects: by range of builds, oldest first: the first and the last build, and the effect.
    """

    values: tuple[Any, ...]
    effects: tuple[tuple[int, int, Effect], ...]


def render(spec: Mapping[str, Any], catalogue: Catalogue, *, folder: str = TEXTS) -> Rendered:
    """The command line for a spec.

    Args:
        spec: as in a manifest.
        catalogue: of the build that runs.
        folder: where the texts are.
    """
    model = LlamaModel.parse(
        {"metadata": {"name": "model", "namespace": "default", "uid": "0", "generation": 1}, "spec": spec}
    )
    facts = Facts(texts=dict.fromkeys(referenced_keys(model.spec), 'root ::= "text"'))
    texts = plan_texts(model, facts=facts, catalogue=catalogue, exact=True, folder=folder)
    arguments = build_arguments(Inputs(model=model, path=file_path, texts=texts.paths), catalogue=catalogue)
    words = []
    for word in arguments.words:
        for index, adapter in enumerate(model.spec.lora_adapters or ()):
            reference = f"$({LORA_SCALE_VARIABLE.format(index=index)})"
            word = word.replace(f":{reference}", f":{adapter.settled_scale:g}")
            word = f"{adapter.settled_scale:g}" if word == reference else word
        words.append(word.replace("$$", "$"))
    return Rendered(
        words=tuple(words),
        texts=texts,
        unsupported=frozenset(
            finding.field for finding in arguments.findings if finding.code is FindingCode.FIELD_UNSUPPORTED
        ),
    )


def said(words: Words, catalogue: Catalogue) -> tuple[Words, ...]:
    """The words, each flag with its values."""
    return tuple(
        (read.word,) if isinstance(read, Stray) else (read.spelling, *read.values)
        for read in read_words(words, catalogue.find)
    )


def effect(example: Example, catalogue: Catalogue) -> Effect:
    """What the field of an example does to the command line of a build."""
    before, after = render(example.without, catalogue), render(example.spec, catalogue)
    without, with_it = said(before.words, catalogue), said(after.words, catalogue)
    return Effect(
        added=_beyond(with_it, without),
        removed=_beyond(without, with_it),
        unsupported=any(f"spec.{example.field}.".startswith(f"{field}.") for field in after.unsupported),
    )


def _beyond(these: Iterable[Words], those: Iterable[Words]) -> tuple[Words, ...]:
    left = Counter(those)
    found = []
    for words in these:
        if left[words]:
            left[words] -= 1
        else:
            found.append(words)
    return tuple(found)


def minimal_command() -> tuple[tuple[int, int, tuple[Words, ...]], ...]:
    """The command line of the smallest spec, by ranges of builds."""
    catalogues = shipped_catalogues()
    return _ranges(
        {
            build: said(render(minimal_spec(), catalogues.get(build)).words, catalogues.get(build))
            for build in catalogues.builds
        }
    )


@functools.cache
def effect_table() -> Mapping[str, tuple[Row, ...]]:
    """For each field of a spec what its values do, build by build. Fields that do nothing in any build are left out."""
    catalogues = shipped_catalogues()
    table: dict[str, tuple[Row, ...]] = {}
    for field in spec_fields():
        same: dict[tuple[tuple[int, int, Effect], ...], list[Any]] = {}
        for example in examples(field):
            by_build = {
                build: _with_placeholder(effect(example, catalogues.get(build)), example.value)
                for build in catalogues.builds
            }
            same.setdefault(_ranges(by_build), []).append(example.value)
        rows = tuple(Row(values=tuple(values), effects=effects) for effects, values in same.items())
        if any(made for row in rows for *_, made in row.effects):
            table[field.name] = rows
    return table


def _with_placeholder(found: Effect, value: Any) -> Effect:
    """The effect with VALUE for the value, and without flags that only had another value before."""
    flags = {words[0] for words in found.added}
    return Effect(
        added=tuple(tuple(_placed(word, value) for word in words) for words in found.added),
        removed=tuple(words for words in found.removed if words[0] not in flags),
        unsupported=found.unsupported,
    )


def _placed(word: str, value: Any) -> str:
    if isinstance(value, bool | dict):
        return word
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if word == text:
        return VALUE
    if not word.startswith("/"):
        return word
    return re.sub(rf"(?<=[/:]){re.escape(text)}(?=$|[/:])", VALUE, word)


def builds_from_to(first: int, last: int) -> str:
    """A range of builds in words."""
    oldest, *_, newest = shipped_catalogues().builds
    if last == newest:
        return "all" if first == oldest else f"b{first} and newer"
    if first == oldest:
        return f"b{last} and older"
    return f"b{first}" if first == last else f"b{first} to b{last}"


def _ranges(by_build: Mapping[int, Any]) -> tuple[tuple[int, int, Any], ...]:
    found: list[tuple[int, int, Any]] = []
    for build, thing in sorted(by_build.items()):
        if found and found[-1][2] == thing:
            found[-1] = (found[-1][0], build, thing)
        else:
            found.append((build, build, thing))
    return tuple(found)
