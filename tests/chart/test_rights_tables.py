"""The tables of the operator's rights in the documentation are those that the chart gives it, to the last verb."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.chart import NAME, NAMESPACE, Manifests, render, rules

ROOT = Path(__file__).parents[2]
WATCHED = '{"watchNamespaces": ["team-a"]}'


@dataclass(frozen=True, kw_only=True)
class Right:
    """To one resource. `own`: to the object of the release alone; `at_home`: in the release's namespace alone;
    `not_watched`: not with watchNamespaces."""

    resource: str
    verbs: frozenset[str]
    own: bool
    at_home: bool
    not_watched: bool


def given(chart: Manifests) -> Iterator[tuple[str, str, str, bool, bool]]:
    """Group, resource, verbs, own, at_home of each right of the operator's account."""
    for binding in chart.all:
        if not binding["kind"].endswith("Binding") or binding["subjects"][0]["name"] != NAME:
            continue
        home = binding["metadata"].get("namespace") == NAMESPACE
        role = chart.one(binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace"))
        for group, resource, verbs in rules(role):
            yield group, resource.partition("=")[0], verbs, "=" in resource, home


def rendered() -> set[Right]:
    """Those that the chart gives by default."""
    everywhere, watched = set(given(render())), set(given(render(WATCHED)))
    groups = Counter(resource for resource, _ in {(resource, group) for group, resource, *_ in everywhere})
    return {
        Right(
            resource=resource if groups[resource] == 1 else f"{resource} ({group or 'core'})",
            verbs=frozenset(verbs.split()),
            own=own,
            at_home=home,
            not_watched=(group, resource, verbs, own, home) not in watched,
        )
        for group, resource, verbs, own, home in everywhere
    }


def told(page: Path) -> set[Right]:
    """Those in the page's table whose first columns are `resource` and `verbs`."""
    _, _, rest = page.read_text(encoding="utf-8").partition("| resource | verbs |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    found: list[Right] = []
    for row in rows:
        resources, verbs = (cell.strip() for cell in row.split("|")[1:3])
        where, _, unless = resources.partition("; ")
        assert unless in ("", "not with `watchNamespaces`"), row
        for clause in verbs.split("; "):
            for name, group in re.findall(r"`([a-z/]+)`(?: \(`?([a-z0-9.]+)`?\))?", where):
                found.append(
                    Right(
                        resource=f"{name} ({group})" if group else name,
                        verbs=frozenset(re.split(", | and ", clause.removesuffix(" of its own"))),
                        own=clause.endswith(" of its own"),
                        at_home=where.endswith(", in its own namespace"),
                        not_watched=bool(unless),
                    )
                )
    assert len(found) == len(set(found)), "said twice"
    return set(found)


@pytest.mark.parametrize("page", ["SECURITY.md", "charts/llamamodel-operator/README.md"])
def test_a_page_that_names_the_operators_rights_names_all_and_no_others(page: str) -> None:
    assert told(ROOT / page) == rendered()
