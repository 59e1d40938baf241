"""What every command writes: lines that a terminal obeys nothing in, JSON, colours where they are wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import click

__all__ = ["clean", "json_text", "note", "paint", "shown_age", "table"]

_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What JSON may hold as it is, and a terminal may obey or be confused by."""

_COLOURS = {
    "error": "red",
    "warning": "yellow",
    "info": "cyan",
    "good": "green",
    "dim": "bright_black",
}


def clean(text: str) -> str:
    """One line, without anything that a terminal would obey: what is shown may come from anybody's manifest."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def paint(text: str, what: str, *, bold: bool = False) -> str:
    """The text in the colour of what it is; `click.echo` takes the colour out where none is wanted."""
    return click.style(text, fg=_COLOURS[what], bold=bold or None)


def note(text: str) -> None:
    """A line for people, on standard error, so that it is never in the way of what is piped on."""
    for line in text.split("\n"):
        click.echo(clean(line), err=True)


def json_text(value: object, *, indent: int | None = 2) -> str:
    """JSON with characters as they are, but for those that a terminal may obey."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, as wide as they need to be; the last is not filled up. Cells may be painted."""
    lines = [heads, *rows]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _width(cell: str) -> int:
    return len(click.unstyle(cell))


def shown_age(seconds: float) -> str:
    """As kubectl shows it, in one unit: 59s, 59m, 23h, 7d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
