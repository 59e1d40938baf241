"""Members of an enumeration with their documentation, and under which comment they stand, from its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Group", "Member", "groups_of", "members_of"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A value, and the docstring below it; empty where there is none."""

    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Members under one comment; the title is empty where there is none."""

    title: str
    members: tuple[Member, ...]


def members_of(enumeration: type[StrEnum]) -> tuple[Member, ...]:
    """All members."""
    return tuple(member for group in groups_of(enumeration) for member in group.members)


def groups_of(enumeration: type[StrEnum]) -> tuple[Group, ...]:
    """The members by the comment on a line of its own above them."""
    source = textwrap.dedent(inspect.getsource(enumeration))
    comments = {
        number: line.strip().removeprefix("#").strip()
        for number, line in enumerate(source.splitlines(), start=1)
        if line.strip().startswith("#")
    }
    groups: list[Group] = []
    for line, member in _members(source, enumeration):
        title = next((comments[number] for number in sorted(comments, reverse=True) if number < line), "")
        if groups and groups[-1].title == title:
            groups[-1] = Group(title=title, members=(*groups[-1].members, member))
        else:
            groups.append(Group(title=title, members=(member,)))
    return tuple(groups)


def _members(source: str, enumeration: type[StrEnum]) -> Iterator[tuple[int, Member]]:
    body = [statement for top in ast.parse(source).body if isinstance(top, ast.ClassDef) for statement in top.body]
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        yield (
            statement.lineno,
            Member(value=enumeration[statement.targets[0].id].value, text=_docstring(following)),
        )


def _docstring(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""
