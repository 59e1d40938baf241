"""Is a text a grammar that llama-server takes? GBNF, as read by `llama_grammar_parser` in llama-grammar.cpp."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.grammar_graph import MAX_DEPTH, MAX_STEPS, TERMINAL, Rules, examine
from llamamodel_operator.core.text.problem import LONGEST_SHOWN, Problem, at, text_problem

__all__ = ["MAX_ELEMENTS", "MAX_NESTING", "MAX_REPETITIONS", "check_grammar", "refused_grammar"]

MAX_REPETITIONS = 2000
"""MAX_REPETITION_THRESHOLD in llama-grammar.cpp."""

MAX_NESTING = 100
"""Of groups. A rule of ours: llama.cpp recurses into each."""

MAX_ELEMENTS = 200_000
"""Of a grammar with its repetitions written out. A rule of ours: llama.cpp builds it anew for each request."""

_MOST_PROBLEMS = 20
_ROOT = "root"

_NAME = re.compile(r"[a-zA-Z0-9-]+")
_DIGITS = re.compile(r"[0-9]+")
_SPACE = re.compile(r"(?:[ \t]+|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)*")
_MAY_BE_SKIPPED = frozenset(" \t\r\n#")
_CHARACTER = re.compile(
    r"""[^\\] | \\ (?: x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} | [trn\\"\[\]-] )""",
    re.VERBOSE | re.DOTALL,
)
_LITERAL = re.compile(
    r"""(?: [^\\"]+ | \\ (?: x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} | [trn\\"\[\]-] ) )*+""",
    re.VERBOSE,
)
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}
_SIMPLE_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}
_LARGEST_TOKEN = 2**32 - 1


def check_grammar(text: str) -> tuple[Problem, ...]:
    """What is wrong with a grammar; nothing where llama-server takes it as it is.

    An error is what llama-server refuses, or what one of these rules of ours refuses because the server would take
    it and then hang, crash, or mean something else: a grammar without `root` (an empty text is no grammar at all to
    the server), `{3,2}`, `[z-a]`, control characters, groups in each other deeper than MAX_NESTING, more than
    MAX_ELEMENTS, rules whose check for left recursion takes it more than MAX_STEPS, and left recursion through a
    rule that is empty only because all its parts may be. A warning is what the server reads otherwise than it looks.

    A text of 1 MiB takes about 0.3 s, and the same text is checked again and again: what was said is kept.
    """
    said = _said_about(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
    if not said:
        said.append(_check(text))
    return said[0]


@lru_cache(maxsize=256)
def _said_about(_digest: bytes) -> list[tuple[Problem, ...]]:
    """Where the answer for a text is kept; empty at first. The text itself, up to 1 MiB, is not kept."""
    return []


@lru_cache(maxsize=256)
def refused_grammar(text: str, *, most_elements: int) -> Problem | None:
    """The first error that `check_grammar` finds; None also where there are more elements than are to be looked at.

    Args:
        most_elements: with repetitions written out, as of MAX_ELEMENTS: they take the time.
    """
    if problem := text_problem(text, what="grammar"):
        return problem
    parser = _Parser(text, most_elements=most_elements)
    try:
        parser.parse()
    except _TooManyElementsError:
        return None
    except _GrammarError as error:
        return at(text, error.offset, error.message)
    return next(iter(parser.undefined() or parser.left_recursion()), None)


def _check(text: str) -> tuple[Problem, ...]:
    if problem := text_problem(text, what="grammar"):
        return (problem,)
    parser = _Parser(text)
    try:
        parser.parse()
    except _GrammarError as error:
        return (at(text, error.offset, error.message), *parser.warnings[: _MOST_PROBLEMS - 1])
    problems = parser.undefined() or parser.left_recursion()
    return tuple([*problems, *parser.warnings][:_MOST_PROBLEMS])


class _GrammarError(Exception):
    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class _TooManyElementsError(_GrammarError):
    pass


@dataclass
class _Sequence:
    """One rule's body while it is read: its alternates one after the other, as the server keeps them."""

    alternates: list[list[int]] = field(default_factory=lambda: [[]])
    last_item: int = 0
    """Where in the last alternate the item starts that a repetition would repeat."""
    last_size: int = 0
    """Elements of that item in the server: a literal has one for each character, here it is one terminal."""
    n_rules: int = 1
    """The server's n_prev_rules."""


class _Parser:
    def __init__(self, text: str, *, most_elements: int = MAX_ELEMENTS) -> None:
        self.text = text
        self.most_elements = most_elements
        self.offset = 0
        self.warnings: list[Problem] = []
        self.ids: dict[str, int] = {}
        self.rules = Rules()
        self.used_at: dict[int, int] = {}
        self.n_elements = 0

    # what is there

    def peek(self, length: int = 1) -> str:
        return self.text[self.offset : self.offset + length]

    def fail(self, expected: str, *, at_offset: int | None = None) -> _GrammarError:
        offset = self.offset if at_offset is None else at_offset
        return _GrammarError(offset, f"found {self.shown(offset)}, expected {expected}")

    def shown(self, offset: int) -> str:
        rest = self.text[offset : offset + LONGEST_SHOWN]
        if not rest:
            return "the end of the grammar"
        if rest[0] in "\r\n":
            return "the end of the line"
        word = _NAME.match(rest)
        return repr(word[0] if word else rest[0])

    def warn(self, offset: int, message: str) -> None:
        if len(self.warnings) < _MOST_PROBLEMS:
            self.warnings.append(at(self.text, offset, message, severity=Severity.WARNING))

    def skip(self, *, lines: bool) -> None:
        if self.text[self.offset : self.offset + 1] in _MAY_BE_SKIPPED:
            found = (_SPACE_AND_LINES if lines else _SPACE).match(self.text, self.offset)
            assert found is not None  # noqa: S101 (it matches the empty text)
            self.offset = found.end()

    # rules

    def parse(self) -> None:
        self.skip(lines=True)
        while self.offset < len(self.text):
            self.rule()
        if _ROOT not in self.ids:
            raise _GrammarError(0, f"found no rule named '{_ROOT}', expected one: it is where the answer starts")

    def rule(self) -> None:
        start = self.offset
        name = _NAME.match(self.text, start)
        if not name:
            hint = "; a line that starts with | goes on the line before" if self.peek() == "|" else ""
            raise self.fail(f"the name of a rule (letters, digits and -){hint}")
        self.offset = name.end()
        rule_id = self.symbol(name[0])
        self.skip(lines=False)
        if self.peek(3) != "::=":
            hint = "; names have letters, digits and - only" if self.peek() == "_" else ""
            raise self.fail(f"::= after the rule's name {name[0]!r}{hint}")
        self.offset += 3
        if self.rules.defined(rule_id):
            self.warn(start, f"the rule {name[0]!r} is defined a second time; only the last definition counts")
        self.skip(lines=True)
        body = self.alternates(depth=0)
        self.rules.define(rule_id, body.alternates, offset=start, name=name[0])
        if self.offset < len(self.text) and self.peek() not in "\r\n":
            hint = "; names have letters, digits and - only" if self.peek() == "_" else ""
            raise self.fail(f"the rule {name[0]!r} to go on or to end with its line{hint}")
        self.skip(lines=True)

    def symbol(self, name: str) -> int:
        if name not in self.ids:
            self.ids[name] = self.rules.add()
        return self.ids[name]

    def alternates(self, *, depth: int) -> _Sequence:
        sequence = _Sequence()
        self.items(sequence, depth=depth)
        while self.peek() == "|":
            self.offset += 1
            self.skip(lines=True)
            sequence.alternates.append([])
            sequence.last_item, sequence.last_size, sequence.n_rules = 0, 0, 1
            self.items(sequence, depth=depth)
        self.count(len(sequence.alternates), at_offset=self.offset)
        return sequence

    def items(self, sequence: _Sequence, *, depth: int) -> None:
        nested, text = depth > 0, self.text
        while self.offset < len(text):
            character = text[self.offset]
            if character == '"':
                self.item(sequence, TERMINAL, size=self.literal())
            elif character == "[":
                self.item(sequence, TERMINAL, size=self.character_class())
            elif character in "<!":
                self.token()
                self.item(sequence, TERMINAL, size=1)
            elif character == ".":
                self.offset += 1
                self.item(sequence, TERMINAL, size=1)
            elif character == "(":
                self.group(sequence, depth=depth)
            elif character in "*+?{":
                self.repetition(sequence, nested=nested)
                continue
            elif name := _NAME.match(self.text, self.offset):
                self.used_at.setdefault(rule_id := self.symbol(name[0]), self.offset)
                self.offset = name.end()
                self.item(sequence, rule_id, size=1)
            else:
                return
            self.skip(lines=nested)

    def item(self, sequence: _Sequence, element: int, *, size: int, n_rules: int = 1) -> None:
        body = sequence.alternates[-1]
        sequence.last_item, sequence.last_size, sequence.n_rules = len(body), size, n_rules
        if size:  # an empty literal leaves nothing behind
            body.append(element)
        self.count(size, at_offset=self.offset)

    def count(self, size: int, *, at_offset: int) -> None:
        self.n_elements += size
        if self.n_elements > self.most_elements:
            raise _TooManyElementsError(
                at_offset,
                f"found more than {self.most_elements:,} elements (repetitions written out), expected fewer:"
                " lower the numbers in braces, or split the literals",
            )

    # items

    def literal(self) -> int:
        start = self.offset
        body = _LITERAL.match(self.text, start + 1)
        assert body is not None  # noqa: S101 (it matches the empty text)
        self.offset = body.end()
        if self.offset >= len(self.text):
            raise _GrammarError(start, 'found a literal without its end, expected " before the end of the grammar')
        if self.peek() != '"':
            raise self.bad_escape()
        self.offset += 1
        return len(body[0]) if "\\" not in body[0] else sum(1 for _ in _CHARACTER.finditer(body[0]))

    def character_class(self) -> int:
        start = self.offset
        self.offset += 2 if self.peek(2) == "[^" else 1
        size = 0
        while self.peek() != "]":
            low = self.class_character(start)
            size += 1
            if self.peek() == "-" and self.peek(2) != "-]":
                range_at = self.offset
                self.offset += 1
                high = self.class_character(start)
                size += 1
                if high < low:
                    raise _GrammarError(range_at - 1, "found a range that ends before it starts: swap its ends")
        self.offset += 1
        return size

    def class_character(self, class_start: int) -> int:
        if self.offset >= len(self.text):
            raise _GrammarError(class_start, "found [ without its end, expected ] before the end of the grammar")
        found = _CHARACTER.match(self.text, self.offset)
        if not found:
            raise self.bad_escape()
        self.offset = found.end()
        written = found[0]
        if len(written) == 1:
            return ord(written)
        if written[1] in _HEX_ESCAPES:
            return int(written[2:], 16)
        return ord(_SIMPLE_ESCAPES.get(written[1], written[1]))

    def bad_escape(self) -> _GrammarError:
        digits = _HEX_ESCAPES.get(self.peek(2)[1:])
        if digits:
            written = self.peek(2 + digits)
            return _GrammarError(self.offset, f"found {written!r}, expected {digits} hexadecimal digits after \\")
        written = self.peek(2)
        known = r"""\n \r \t \\ \" \[ \] \- \xHH \uHHHH \UHHHHHHHH"""
        return _GrammarError(self.offset, f"found the escape {written}, expected one of {known}")

    def token(self) -> None:
        if self.peek() == "!":
            self.offset += 1
        start = self.offset
        if self.peek() != "<":
            raise self.fail("a token such as <[1234]> or <think> after !")
        self.offset += 1
        if self.peek() != "[":
            end = self.text.find(">", self.offset)
            if end < 0:
                raise _GrammarError(start, "found < without its end, expected > after the token")
            self.offset = end + 1
            shown = self.text[start : min(self.offset, start + LONGEST_SHOWN)]
            self.warn(start, f"whether {shown} is one token depends on the model; if not, the server refuses it")
            return
        self.offset += 1
        digits = _DIGITS.match(self.text, self.offset)
        if not digits:
            raise self.fail("the number of a token, as in <[1234]>")
        if len(digits[0]) > len(str(_LARGEST_TOKEN)) or int(digits[0]) > _LARGEST_TOKEN:
            raise self.fail(f"the number of a token, {_LARGEST_TOKEN} at most")
        self.offset = digits.end()
        if self.peek(2) != "]>":
            raise self.fail("]> after the number of a token")
        self.offset += 2

    def group(self, sequence: _Sequence, *, depth: int) -> None:
        start = self.offset
        if depth >= MAX_NESTING:
            raise _GrammarError(start, f"found groups in groups, {depth + 1} deep, expected {MAX_NESTING} at most")
        self.offset += 1
        self.skip(lines=True)
        before = len(self.rules)
        rule_id = self.rules.add()
        body = self.alternates(depth=depth + 1)
        self.rules.define(rule_id, body.alternates, offset=start)
        if self.peek() != ")":
            raise self.fail(f"the group that starts at {_place(self.text, start)} to go on, or its )")
        self.offset += 1
        self.item(sequence, rule_id, size=1, n_rules=max(1, len(self.rules) - before))

    def repetition(self, sequence: _Sequence, *, nested: bool) -> None:
        start = self.offset
        sign = self.peek()
        self.offset += 1
        self.skip(lines=nested)
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign) or self.braces(nested=nested)
        item = sequence.alternates[-1][sequence.last_item :]
        if not item:
            raise _GrammarError(start, f"found {sign!r} with nothing before it that it could repeat, expected an item")
        times = most or least or 1
        if sequence.n_rules * times > MAX_REPETITIONS:
            raise _GrammarError(
                start,
                f"found {sequence.n_rules * times:,} repetitions of rules, expected {MAX_REPETITIONS:,} at most"
                f" ({times:,} times, {sequence.n_rules:,} rules each): lower the number, or repeat something simpler",
            )
        if most is not None and most < least:
            raise _GrammarError(start, f"found {{{least},{most}}}, expected the larger number last: swap them")
        self.expand(sequence, item, least=least, most=most, offset=start)
        sequence.n_rules *= times

    def braces(self, *, nested: bool) -> tuple[int, int | None]:
        least = self.number(nested=nested)
        most: int | None = least
        if self.peek() == ",":
            self.offset += 1
            self.skip(lines=nested)
            most = self.number(nested=nested) if _DIGITS.match(self.text, self.offset) else None
        if self.peek() != "}":
            raise self.fail("} or , after the number of repetitions" if most == least else "}")
        self.offset += 1
        self.skip(lines=nested)
        if least > MAX_REPETITIONS:
            raise self.fail_number(least)
        if most is not None and most > MAX_REPETITIONS:
            self.warn(
                self.offset - 1, f"found {most:,}; llama-server reads what is over {MAX_REPETITIONS:,} as no limit"
            )
            most = None
        return least, most

    def number(self, *, nested: bool) -> int:
        digits = _DIGITS.match(self.text, self.offset)
        if not digits:
            raise self.fail("a number of repetitions, as in {2}, {2,} or {2,5}")
        if len(digits[0].lstrip("0")) > 19:  # the server counts in 64 bits
            raise self.fail(f"a number of repetitions, {MAX_REPETITIONS:,} at most")
        self.offset = digits.end()
        self.skip(lines=nested)
        return int(digits[0])

    def fail_number(self, number: int) -> _GrammarError:
        return _GrammarError(
            self.offset - 1, f"found {number:,} repetitions, expected {MAX_REPETITIONS:,} at most: lower the number"
        )

    def expand(self, sequence: _Sequence, item: list[int], *, least: int, most: int | None, offset: int) -> None:
        """What the server makes of S{m,n}: m times S, then a rule of its own for each further one."""
        size = max(sequence.last_size, len(item))
        n_optional = 1 if most is None else most - least
        self.count((least + n_optional) * (size + 2), at_offset=offset)
        body = sequence.alternates[-1]
        del body[sequence.last_item :]
        body.extend(item * least)
        rule_id = 0
        for index in range(n_optional):
            previous, rule_id = rule_id, self.rules.add()
            tail = [rule_id] if most is None else [previous] if index else []
            self.rules.define(rule_id, [[*item, *tail], []], offset=offset)
        if n_optional:
            body.append(rule_id)
        sequence.last_size = least * size + bool(n_optional)

    # the whole

    def undefined(self) -> list[Problem]:
        problems: list[Problem] = []
        defined = [name for name, rule_id in self.ids.items() if self.rules.defined(rule_id)]
        for name, rule_id in self.ids.items():
            if self.rules.defined(rule_id) or len(problems) >= _MOST_PROBLEMS:
                continue
            near = difflib.get_close_matches(name[:LONGEST_SHOWN], defined[:2000], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"define it, as in {name[:LONGEST_SHOWN]} ::= …"
            message = f"found the rule {name[:LONGEST_SHOWN]!r}, which is not defined: {hint}"
            problems.append(at(self.text, self.used_at[rule_id], message))
        return problems

    def left_recursion(self) -> list[Problem]:
        found = examine(self.rules)
        if found.recursive is not None:
            return [self.recursion(found.recursive)]
        if found.hidden is not None:
            return [self.recursion(found.hidden, through="; what stands before it may be empty")]
        if found.too_deep is not None:
            offset, _ = self.rules.place(found.too_deep)
            return [
                at(
                    self.text,
                    offset,
                    f"found rules that start with each other more than {MAX_DEPTH:,} deep or in more than"
                    f" {MAX_STEPS:,} ways, expected fewer: llama-server would not get to an end with them",
                )
            ]
        if found.idle is not None:
            offset, _ = self.rules.place(found.idle)
            message = "found a repetition of something that may itself be empty: let it have one character at least"
            self.warn(offset, message)
        return []

    def recursion(self, rule_id: int, *, through: str = "") -> Problem:
        offset, name = self.rules.place(rule_id)
        which = f"the rule {name[:LONGEST_SHOWN]!r}, which starts" if name else "a repetition or group that starts"
        advice = 'let it end with itself instead, as in list ::= item ("," list)?, and repeat nothing that may be empty'
        return at(self.text, offset, f"found {which} with itself{through} (left recursion): {advice}")


def _place(text: str, offset: int) -> str:
    problem = at(text, offset, "")
    return f"line {problem.line}, column {problem.column}"
