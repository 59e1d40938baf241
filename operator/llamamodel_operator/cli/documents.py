"""YAML and JSON as Kubernetes reads them, with the line of each field, and with limits: any input gives documents or
problems, in bounded time.

Scalars mean what they mean to kubectl (YAML 1.1 as go-yaml has it): yes and on are booleans, dates are text. What
kubectl passes over in silence, such as a key that is given twice, is a problem here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from llamamodel_operator.cli.scalars import MERGE, TAG, MergeKey, MistakeError, read_scalar, unknown_tag

__all__ = ["Document", "Problem", "read_documents"]

MAX_DEPTH = 100
"""Levels of lists and objects inside each other."""

MAX_NODES = 250_000
"""Values in a file, what aliases stand for counted each time: a few lines of them can stand for billions."""

_MAX_PROBLEMS = 20
"""Of one file; after that it is rather no manifest at all."""

_LONGEST = 300
"""Characters of a message; it may quote what was found."""

_Marks: TypeAlias = dict[int, dict[str | int, int]]
"""For each list and object, by its identity, the line of each item."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a file, in one line.

    Attributes:
        file: as it was named.
        message: what was found and what was expected.
        line: from 1 on; None where it is about the whole file.
    """

    file: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One object of a file.

    Attributes:
        file: as it was named.
        line: where the object begins.
        value: its fields.
    """

    file: str
    line: int
    value: dict[str, Any]
    marks: _Marks = field(repr=False, compare=False)

    def line_of(self, path: str) -> int:
        """The line of a field such as `spec.env[2].valueFrom`, or of the nearest thing around it that is there."""
        at: object = self.value
        line, rest = self.line, path
        while rest:
            if isinstance(at, dict):
                # keys may hold dots themselves: the longest that fits
                fits = (key for key in at if rest == key or rest.startswith((f"{key}.", f"{key}[")))
                key: str | int | None = max(fits, key=len, default=None)
                length = len(str(key)) if key is not None else 0
            elif isinstance(at, list) and (found := re.match(r"\[(\d{1,9})\]", rest)) and int(found[1]) < len(at):
                key, length = int(found[1]), found.end()
            else:
                break
            if key is None:
                break
            line = self.marks.get(id(at), {}).get(key, line)
            at = at[key]  # type: ignore[index]
            rest = rest[length:].removeprefix(".")
        return line

    def items(self) -> Iterator[Document]:
        """The objects in a List, or the object itself. An item that is no object is left out: see `strays`."""
        if not self._is_list:
            yield self
            return
        for index, item in enumerate(self.value["items"]):
            if isinstance(item, dict):
                line = self.line_of(f"items[{index}]")
                yield from Document(file=self.file, line=line, value=item, marks=self.marks).items()

    def strays(self) -> Iterator[Problem]:
        """Items of a List that are no objects."""
        for index, item in enumerate(self.value["items"] if self._is_list else ()):
            if not isinstance(item, dict):
                line = self.line_of(f"items[{index}]")
                yield Problem(
                    file=self.file, line=line, message=f"items[{index}]: expected an object, found {_kind(item)}"
                )

    @property
    def _is_list(self) -> bool:
        return str(self.value.get("kind", "")).endswith("List") and isinstance(self.value.get("items"), list)


def read_documents(data: bytes, *, file: str) -> tuple[list[Document], list[Problem]]:
    """All objects in a file. A document with a mistake is a problem; the others are still read."""
    try:
        text = _text(data)
    except MistakeError as mistake:
        return [], [Problem(file=file, line=mistake.line, message=_cut(mistake.message))]
    documents: list[Document] = []
    problems: list[Problem] = []
    budget = _Budget()
    for start, part in _parts(text):
        try:
            for line, value, marks in _Builder(budget, start).build(_json_escapes(part)):
                if isinstance(value, dict):
                    documents.append(Document(file=file, line=line, value=value, marks=marks))
                elif value is not None:
                    expected = "expected an object with apiVersion and kind"
                    problems.append(Problem(file=file, line=line, message=f"{expected}, found {_kind(value)}"))
        except MistakeError as mistake:
            problems.append(Problem(file=file, line=mistake.line, message=_cut(mistake.message)))
        if len(problems) >= _MAX_PROBLEMS or budget.spent:
            break
    return documents, problems


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MistakeError("expected UTF-8, found UTF-16: save it as UTF-8", 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MistakeError(f"expected text in UTF-8, found the byte 0x{data[error.start]:02x}", line) from None
    if found := re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
        line = text.count("\n", 0, found.start()) + 1
        raise MistakeError(
            f"expected text, found the control character U+{ord(found[0]):04X}: is it a binary file?", line
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The documents, as kubectl cuts them: at lines that begin with ---. Each with the line it begins at, from 0 on."""
    line = 0
    for part in re.split(r"(?m)^---(?=\s|$)", text):
        if re.search(r"(?m)^(?!\.\.\.$)[ \t]*[^\s#%]", part):
            yield line, part
        line += part.count("\n")


def _json_escapes(part: str) -> str:
    """JSON is YAML, but for characters that it writes as two escapes."""
    if not part.lstrip().startswith("{"):
        return part
    return re.sub(
        r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})",
        lambda pair: f"{pair[1]}\\U{0x10000 + (int(pair[2], 16) - 0xD800) * 0x400 + int(pair[3], 16) - 0xDC00:08x}",
        part,
    )


@dataclass
class _Budget:
    left: int = MAX_NODES
    spent: bool = False

    def take(self, nodes: int, line: int) -> None:
        self.left -= nodes
        if self.left < 0:
            self.spent = True
            raise MistakeError(
                f"found more than {MAX_NODES} values, aliases counted as what they stand for: split the file", line
            )


@dataclass
class _Frame:
    """A list or an object that is not complete yet."""

    value: dict[str, Any] | list[Any]
    line: int
    anchor: str | None
    marks: dict[str | int, int] = field(default_factory=dict)
    key: str | None = None
    merged: list[dict[str, Any]] | None = None
    nodes: int = 1


class _Builder:
    """Values from the parser's events. Not recursive, so that no depth of nesting can hurt."""

    def __init__(self, budget: _Budget, start: int) -> None:
        self._budget = budget
        self._start = start
        self._marks: _Marks = {}
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._complete: list[tuple[int, Any]] = []

    def build(self, text: str) -> Iterator[tuple[int, Any, _Marks]]:
        for event in self._events(text):
            line = self._line(event.start_mark.line)
            match event:
                case yaml.DocumentStartEvent():
                    self._anchors, self._marks = {}, {}
                case yaml.AliasEvent():
                    self._alias(event.anchor, line)
                case yaml.ScalarEvent():
                    value = read_scalar(event, line, is_key=self._expects_key)
                    self._budget.take(1, line)
                    self._done(value, 1, event.anchor, line)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()
            while self._complete:
                yield *self._complete.pop(), self._marks

    def _events(self, text: str) -> Iterable[Any]:
        lines = text.split("\n")
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            number = mark.line if mark else 0
            shown = lines[number] if number < len(lines) else ""
            raise MistakeError(_syntax(error, shown), self._line(number)) from None
        except yaml.YAMLError as error:
            raise MistakeError(f"is no YAML: {' '.join(str(error).split())}", self._line(0)) from None

    def _line(self, number: int) -> int:
        return self._start + number + 1

    @property
    def _expects_key(self) -> bool:
        return bool(self._frames) and isinstance(self._frames[-1].value, dict) and self._frames[-1].key is None

    def _open(self, event: Any, line: int) -> None:
        if self._expects_key:
            raise MistakeError(
                "a key must be text, found a list or an object: is it a template? Give what it renders, or put {{ … }}"
                " into quotes",
                line,
            )
        if len(self._frames) >= MAX_DEPTH:
            raise MistakeError(f"lists and objects are inside each other more than {MAX_DEPTH} levels deep", line)
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{TAG}map" if is_map else f"{TAG}seq"):
            unknown_tag(event.tag, line)
        self._budget.take(1, line)
        self._frames.append(_Frame(value={} if is_map else [], line=line, anchor=event.anchor))

    def _close(self) -> None:
        frame = self._frames.pop()
        if isinstance(frame.value, dict):
            for merged in frame.merged or ():
                for key, value in merged.items():
                    frame.value.setdefault(key, value)
        self._marks[id(frame.value)] = frame.marks
        self._done(frame.value, frame.nodes, frame.anchor, frame.line)

    def _alias(self, anchor: str | None, line: int) -> None:
        if anchor and anchor in self._anchors:
            value, nodes = self._anchors[anchor]
            self._budget.take(nodes, line)
            self._done(value, nodes, None, line)
        elif any(frame.anchor == anchor for frame in self._frames):
            raise MistakeError(f"*{anchor} stands inside of what it refers to", line)
        else:
            raise MistakeError(f"*{anchor} refers to nothing: there is no &{anchor} before it", line)

    def _done(self, value: Any, nodes: int, anchor: str | None, line: int) -> None:
        """A value is complete: it goes where it belongs."""
        if anchor:
            self._anchors[anchor] = (value, nodes)
        if not self._frames:
            self._complete.append((line, value))
            return
        frame = self._frames[-1]
        frame.nodes += nodes
        if isinstance(frame.value, list):
            frame.marks[len(frame.value)] = line
            frame.value.append(value)
        elif frame.key is None:
            self._key(frame, value, line)
        elif frame.key == MERGE and frame.merged is not None and not frame.merged:
            frame.merged, frame.key = _merged(value, line), None
        else:
            frame.value[frame.key] = value
            frame.key = None

    def _key(self, frame: _Frame, value: Any, line: int) -> None:
        if isinstance(value, dict | list):
            raise MistakeError("a key must be text, found an alias of a list or an object", line)
        if isinstance(value, MergeKey):
            if frame.merged is not None:
                raise MistakeError("the key << is given twice: write <<: [*a, *b]", line)
            frame.key, frame.merged = MERGE, []
            return
        if value is None:
            raise MistakeError("a key is empty: put ~ and null into quotes", line)
        key = _key_text(value)
        if key in frame.marks:
            raise MistakeError(
                f"the key {key!r} is given twice, first in line {frame.marks[key]}: remove one of them", line
            )
        frame.key, frame.marks[key] = key, line


def _key_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value, ".8g") if isinstance(value, float) else str(value)  # as sigs.k8s.io/yaml writes it


def _merged(value: Any, line: int) -> list[dict[str, Any]]:
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in given):
        raise MistakeError("<<: expected an alias of an object, or a list of them", line)
    return given


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else f"the value {value}"


def _syntax(error: yaml.MarkedYAMLError, line: str) -> str:
    """The parser's complaint, and what is most likely the reason."""
    said = "; ".join(part for part in (error.context, error.problem) if part)
    if re.search(r"^\s*\t", line):
        advice = ": the line is indented with a tab, and YAML wants spaces"
    elif "{{" in line:
        advice = ": is it a template? Give what it renders, as from `helm template`"
    else:
        advice = ""
    return f"is no YAML: {said}{advice}"


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
