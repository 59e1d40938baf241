"""values.yaml as its author wrote it: the keys in their order, with their comments and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Value", "ValuesError", "documented", "parse_values"]

_KEY = re.compile(r"(?P<indent> *)(?P<key>[^\s:#][^\s:]*):(?: +(?P<default>\S.*))?")


class ValuesError(Exception):
    """values.yaml, its schema or its reference do not fit together; the message says where and what to do."""


@dataclass(kw_only=True)
class Value:
    """A key. `default` is YAML on one line; None where the key has keys below it. `group` is the `##@` line above."""

    path: tuple[str, ...]
    description: str
    default: str | None
    group: str
    children: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path as `--set` wants it."""
        return ".".join(part.replace(".", r"\.") for part in self.path)

    def flow(self) -> str:
        """The default as YAML on one line, with all that is below."""
        if self.default is not None:
            return self.default
        return "{" + ", ".join(f"{child.path[-1]}: {child.flow()}" for child in self.children) + "}"


def parse_values(text: str) -> list[Value]:
    """The top-level keys. Only maps and one-line values can be read, which is all that defaults should be.

    Raises:
        ValuesError: a line is something else, or a key has no documentation.
    """
    top: list[Value] = []
    above: list[Value] = []
    comment: list[str] = []
    group = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("##@ "):
            group, comment = stripped.removeprefix("##@ "), []
        elif stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
        elif not stripped:
            comment = []
        else:
            match = _KEY.fullmatch(line)
            if match is None or len(match["indent"]) % 2 or len(match["indent"]) // 2 > len(above):
                raise ValuesError(f"values.yaml:{number}: expected `key: value`, two spaces per level, found {line!r}")
            del above[len(match["indent"]) // 2 :]
            value = Value(
                path=(*(above[-1].path if above else ()), match["key"]),
                description=" ".join(comment),
                default=match["default"],
                group=group,
            )
            (above[-1].children if above else top).append(value)
            above.append(value)
            comment = []
    for value in top:
        _check(value)
    return top


def documented(values: list[Value]) -> Iterator[Value]:
    """The rows of the reference: keys whose own keys, if any, have no documentation of their own."""
    for value in values:
        if any(child.description for child in value.children):
            yield from documented(value.children)
        else:
            yield value


def _check(value: Value) -> None:
    if not value.description:
        raise ValuesError(f"values.yaml: {value.name} has no comment above it that says what it is")
    if (value.default is None) == (not value.children):
        raise ValuesError(f"values.yaml: {value.name} needs a default on its own line or keys below it")
    if any(child.description for child in value.children):
        for child in value.children:
            _check(child)
