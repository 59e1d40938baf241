"""What the documentation tells people to type, and to write into files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Command", "blocks", "commands", "pages", "section"]

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"(?P<before>^[ ]*<!-- not run: [^\n]+ -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PROGRAMS = frozenset({"llamamodel", "kubectl", "helm", "make", "python3"})
_SHELL = frozenset({"", "bash", "sh", "console"})
_VALUE = "/"
"""Of an option that is named without one, in prose."""
_OPERATORS = frozenset(";&|<>()\n")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page; `run` is false where a comment before it says why it is not run."""

    page: str
    line: int
    language: str
    text: str
    run: bool


@dataclass(frozen=True, kw_only=True)
class Command:
    """A simple command that a page names, in a block or among words."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def pages() -> Iterator[Path]:
    """README and all pages, without decisions, which tell of their time."""
    yield ROOT / "README.md"
    yield ROOT / "charts" / "llamamodel-operator" / "README.md"
    yield from sorted(path for path in (ROOT / "docs").rglob("*.md") if "adr" not in path.parts)


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in their order, without the indentation of a list."""
    content = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(content):
        indent = len(match["indent"])
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=content.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            text="".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True)),
            run=match["before"] is None,
        )


def section(page: Path, heading: str) -> list[str]:
    """The texts of the fenced blocks below a heading, such as `## Uninstall`, up to the next one of its level."""
    lines = page.read_text(encoding="utf-8").splitlines()
    begin = lines.index(heading)
    level = heading.split()[0]
    end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith(f"{level} ")), len(lines))
    return [block.text for block in blocks(page) if begin < block.line <= end]


def commands(page: Path) -> Iterator[Command]:
    """Commands of the programs that are known here. What has an ellipsis is no command."""
    for block in blocks(page):
        if block.language in _SHELL:
            for words in _simple_commands(_typed(block.text), exact=block.language != ""):
                yield Command(page=block.page, line=block.line, words=words)
    content = page.read_text(encoding="utf-8")
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), content)
    for match in _INLINE.finditer(prose):
        for words in _simple_commands(match[1].replace("\n", " ").replace("\\|", "|")):
            line = prose.count("\n", 0, match.start()) + 1
            lacking = (_VALUE,) if words[-1].startswith("--") else ()
            yield Command(page=str(page.relative_to(ROOT)), line=line, words=(*words, *lacking))


def _typed(text: str) -> str:
    """Where lines have a prompt, only these were typed."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = joined.splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(prompted or lines)


def _simple_commands(text: str, *, exact: bool = False) -> Iterator[tuple[str, ...]]:
    without_comments = re.sub(r"(^|\s)#[^\n]*", r"\1", text)
    if not any(program in without_comments for program in _PROGRAMS):
        return
    lexer = shlex.shlex(without_comments, posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    try:
        for word in [*lexer, "\n"]:
            if not set(word) <= _OPERATORS:
                words.append(word)
                continue
            if words and words[0] in _PROGRAMS and not any({"…", "─"} & set(each) for each in words):
                yield tuple(words)
            words = []
    except ValueError:
        if exact:
            raise
        # an apostrophe: prose, or what a program printed
