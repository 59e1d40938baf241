"""What commands printed, and the picture of a terminal that is drawn from it: the same text gives the same picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

__all__ = ["COLUMNS", "Command", "draw", "read", "write"]

COLUMNS = 112
"""Characters in a line; longer ones are wrapped."""

_THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [(72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65), *[(121, 192, 255)] * 3, (201, 209, 217)],
)
"""Light text on a dark window of its own, which can be read on a light page and on a dark one."""

# rich's own template fetches a font from elsewhere; here it is whatever the reader has.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One line that was typed, and what it printed."""

    line: str
    output: str


def read(file: Path) -> list[Command]:
    """What `write` wrote."""
    return [Command(**entry) for entry in json.loads(file.read_text())]


def write(file: Path, *, commands: Sequence[Command]) -> None:
    """As JSON, so that a review shows what changed."""
    file.write_text(json.dumps([asdict(command) for command in commands], indent=2, ensure_ascii=False) + "\n")


def draw(commands: Sequence[Command]) -> str:
    """An SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, command in enumerate(commands):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "green"), (command.line, "bold")))
        console.print(Text(command.output.rstrip("\n")))
    svg = console.export_svg(title="", theme=_THEME, code_format=_SVG, font_aspect_ratio=0.61, unique_id="terminal")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
