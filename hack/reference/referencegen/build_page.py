"""The page about builds: which are known, and what changed from each to the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from llamamodel_operator.core.engine.catalogue import Catalogue, FlagState
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from referencegen.changes import Changes, Replaced, changes_between, taken
from referencegen.markdown import anchor, bullet, code, listed, page, paragraph, table

__all__ = ["builds_page"]


def builds_page() -> str:
    """Every shipped catalogue, the newest first."""
    catalogues = shipped_catalogues()
    known = [catalogues.get(build) for build in catalogues.builds]
    parts = [
        paragraph(
            f"The builds of llama.cpp whose `llama-server` flags the operator knows: {len(known)}, from"
            f" b{known[0].build} to b{known[-1].build}. A catalogue is made by `python3 hack/catalogue` from what the"
            " program's own `--help` says, where the source says so, else from the table of arguments in the source."
        ),
        paragraph(
            "Which build runs is said by the image's tag (`…-b10434`), else by `spec.engine.build`, else by a running"
            " server of that image. For a build between two known ones only that is an error in which both agree;"
            " what else is odd is a warning. Where nobody says, the newest one is taken."
        ),
        table(
            ("build", "made from", "flags", "deprecated", "without effect", "chat templates"),
            [_row(catalogue) for catalogue in reversed(known)],
        ),
    ]
    for older, newer in reversed(list(itertools.pairwise(known))):
        parts.append(f"## b{newer.build}")
        parts.append(f"Since [b{older.build}]({anchor(f'b{older.build}')}):")
        said = list(_said(changes_between(older, newer)))
        parts.append("\n".join(said) or "nothing changed.")
    parts += [f"## b{known[0].build}", "The oldest one that is known."]
    return page("Builds of llama.cpp", parts)


def _row(catalogue: Catalogue) -> tuple[str, ...]:
    flags = taken(catalogue)
    numbers = (
        len(flags),
        sum(flag.state is FlagState.DEPRECATED for flag in flags),
        sum(flag.state is FlagState.WITHOUT_EFFECT for flag in flags),
        len(catalogue.chat_templates),
    )
    name = f"b{catalogue.build}"
    return (f"[{name}]({anchor(name)})", catalogue.source, *map(str, numbers))


def _said(changes: Changes) -> Iterator[str]:
    if changes.added:
        yield bullet(f"new: {listed(changes.added)}")
    if changes.removed:
        yield bullet(f"removed: {_replaced(changes.removed)}")
    if changes.deprecated:
        yield bullet(f"deprecated: {_replaced(changes.deprecated)}")
    if changes.without_effect:
        yield bullet(f"without effect from now on: {listed(changes.without_effect)}")
    if renamed := [each for each in changes.respelled if each.new]:
        yield bullet("new names: " + ", ".join(f"{listed(each.new)} for {code(each.before)}" for each in renamed))
    if dropped := [each for each in changes.respelled if each.gone]:
        yield bullet(
            "names that are gone: " + ", ".join(f"{listed(each.gone)} for {code(each.name)}" for each in dropped)
        )
    for each in changes.revalued:
        yield bullet(f"values of {code(each.name)}: {each.after}; before: {each.before}")
    if changes.chat_templates:
        yield bullet(f"new chat templates: {listed(changes.chat_templates)}")
    if changes.chat_templates_gone:
        yield bullet(f"chat templates that are gone: {listed(changes.chat_templates_gone)}")


def _replaced(flags: tuple[Replaced, ...]) -> str:
    return ", ".join(
        code(each.name) + (f" (now {code(each.replacement)})" if each.replacement else "") for each in flags
    )
