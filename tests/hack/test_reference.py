"""The generated reference: links lead somewhere, nothing is missing, changes between builds are said rightly."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest
from referencegen.changes import Replaced, Respelled, Revalued, changes_between
from referencegen.cli import pages
from referencegen.markdown import anchor, bullet, code, prose, table
from referencegen.members import groups_of
from referencegen.schema import fields_of, walk

from llamamodel_operator.api.conditions import ConditionType, Reason
from llamamodel_operator.api.findings import FindingCode
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState, ValueType
from llamamodel_operator.core.engine.catalogues import shipped_catalogues

PAGES = dict(pages())
FOLDER = Path(__file__).parents[2] / "docs" / "reference"


class Colour(StrEnum):
    """For the test."""

    # warm ones
    RED = "red"
    """Of roses,
    and of fire."""
    ORANGE = "orange"
    # cold ones
    BLUE = "blue"
    """Of the sea."""


def test_the_same_sources_always_give_the_same_pages() -> None:
    assert dict(pages()) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        file, _, heading = target.partition("#")
        if target.startswith("https://"):
            assert target.startswith("https://kubernetes.io/docs/")
        elif file:
            assert (FOLDER / name).parent.joinpath(file).resolve().is_file()
        else:
            headings = re.findall(r"^#+ (.*)$", PAGES[name], re.MULTILINE)
            assert f"#{heading}" in map(anchor, headings)


@pytest.mark.parametrize("name", PAGES)
def test_lines_are_wrapped_but_for_tables_and_links(name: str) -> None:
    lines = [line for line in PAGES[name].splitlines() if len(line) > 121]
    assert [line for line in lines if not line.startswith("|") and "](https://" not in line] == []


def test_nothing_is_missing() -> None:
    for field in walk(fields_of(LlamaModelSpec)):
        assert field.description or field.children, f"spec.{field.name} has no documentation"
        assert f"**`{'.'.join(field.path[1:])}`**" in PAGES["fields.md"] or f"**`{field.name}`**" in PAGES["fields.md"]
    for finding in FindingCode:
        assert f"| `{finding.value}` |" in PAGES["findings.md"]
    for word in (*ConditionType, *Reason):
        assert f"`{word.value}`" in PAGES["conditions.md"]
    for reason in Reason:
        assert f"\n### {reason}\n\n**What it means:** " in PAGES["../troubleshooting.md"]
    for build in shipped_catalogues().builds:
        assert f"\n## b{build}\n" in PAGES["builds.md"]


def test_members_come_with_their_docstrings_and_the_comment_above_them() -> None:
    warm, cold = groups_of(Colour)
    assert (warm.title, [(m.value, m.text) for m in warm.members]) == (
        "warm ones",
        [("red", "Of roses, and of fire."), ("orange", "")],
    )
    assert (cold.title, [(m.value, m.text) for m in cold.members]) == ("cold ones", [("blue", "Of the sea.")])


def test_code_may_have_backquotes_in_it_and_at_its_ends() -> None:
    assert [code("a"), code("a `b` c"), code("a `b`")] == ["`a`", "``a `b` c``", "`` a `b` ``"]


def test_plain_text_stays_plain_and_code_stays_code() -> None:
    assert prose("a*b <c> _d_ e_f `g*h`") == r"a\*b \<c> \_d\_ e_f `g*h`"
    assert bullet("x" * 110 + " `code with spaces`", below="y").splitlines() == [
        "- " + "x" * 110,
        "  `code with spaces`\\",
        "  y",
    ]
    assert table(("a",), [("b|c",)]) == "| a |\n| --- |\n| b\\|c |"


def _catalogue(build: int, *flags: Flag, templates: tuple[str, ...] = ()) -> Catalogue:
    return Catalogue(build=build, flags=flags, chat_templates=frozenset(templates))


def _number(name: str, *aliases: str, **more: object) -> Flag:
    return Flag(name=name, aliases=aliases, arity=1, value_type=ValueType.INTEGER, **more)  # type: ignore[arg-type]


def test_what_changed_from_one_build_to_the_next_is_named_once_each() -> None:
    older = _catalogue(
        1,
        _number("--draft-max"),
        _number("--kept", "-k"),
        _number("--same"),
        _number("--old"),
        _number("--thold"),
        Flag(name="--flash"),
        templates=("a", "b"),
    )
    newer = _catalogue(
        2,
        _number("--same-thing", "--same"),
        _number("--kept"),
        _number("--old", state=FlagState.DEPRECATED, replacement="--new"),
        _number("--thold", state=FlagState.WITHOUT_EFFECT),
        Flag(name="--flash", arity=1, value_type=ValueType.STRING, allowed=("on", "off")),
        Flag(name="--new"),
        _number("--draft-max", state=FlagState.REMOVED, replacement="--spec-max", carried=True),
        templates=("b", "c"),
    )
    changes = changes_between(older, newer)
    assert changes.added == ("--new",)
    assert changes.removed == (Replaced(name="--draft-max", replacement="--spec-max"),)
    assert changes.deprecated == (Replaced(name="--old", replacement="--new"),)
    assert changes.without_effect == ("--thold",)
    assert changes.respelled == (
        Respelled(before="--same", name="--same-thing", new=("--same-thing",), gone=()),
        Respelled(before="--kept", name="--kept", new=(), gone=("-k",)),
    )
    assert changes.revalued == (Revalued(name="--flash", before="no value", after="one of on, off"),)
    assert (changes.chat_templates, changes.chat_templates_gone) == (("c",), ("a",))
