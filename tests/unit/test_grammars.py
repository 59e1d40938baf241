"""GBNF: what is wrong, where, and what to do. tests/server compares with the real server what is valid at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.grammar import MAX_ELEMENTS, MAX_NESTING, check_grammar
from llamamodel_operator.core.text.problem import MAX_TEXT_BYTES

SAID = [
    ('root = "a"', "line 1, column 6: found '=', expected ::= after the rule's name 'root'"),
    ('ro_ot ::= "a"', "names have letters, digits and - only"),
    ('root ::= "a" b_c', "line 1, column 15: found '_'"),
    ('root ::= "a"\n| "b"', "line 2, column 1: found '|', expected the name of a rule (letters, digits and -);"),
    ('root ::= "a', 'line 1, column 10: found a literal without its end, expected "'),
    ("root ::=\n  [a-z", "line 2, column 3: found [ without its end, expected ]"),
    ('root ::= ("a"', "found the end of the grammar, expected the group that starts at line 1, column 10 to go on"),
    ('root ::= "a")', "found ')', expected the rule 'root' to go on or to end with its line"),
    ('root ::= "ä\\q"', "line 1, column 12: found the escape \\q, expected one of \\n"),
    ('root ::= "\\x4g"', "found '\\\\x4g', expected 2 hexadecimal digits"),
    ("root ::= *", "found '*' with nothing before it"),
    ('root ::= "a"{}', "found '}', expected a number of repetitions"),
    ('root ::= "a"{1;2}', "found ';', expected } or , after the number"),
    ('root ::= "a"{2001}', "found 2,001 repetitions, expected 2,000 at most"),
    ('root ::= "a"{3,2}', "found {3,2}, expected the larger number last"),
    ('root ::= "a"{100}{100}', "found 10,000 repetitions of rules, expected 2,000 at most"),
    ("root ::= [z-a]", "line 1, column 11: found a range that ends before it starts"),
    (
        "root ::= itm\nitem ::= [a-z]",
        "line 1, column 10: found the rule 'itm', which is not defined: did you mean 'item'?",
    ),
    ('start ::= "a"', "found no rule named 'root'"),
    ("", "found no rule named 'root'"),
    ('root ::= "x"\nlist ::= list "a" | "b"', "line 2, column 1: found the rule 'list', which starts with itself"),
    ('root ::= b root "x" | "y"\nb ::= c\nc ::= "z" |', "what stands before it may be empty"),
    ('root ::= "a"?*', "line 1, column 14: found a repetition or group that starts with itself"),
    ("root ::= <[1", "found the end of the grammar, expected ]> after the number of a token"),
    ("root ::= ! <[1]>", "found ' ', expected a token"),
    ('root ::= "\x07"', "found the control character U+0007"),
    ('root ::= "\ud800"', "found half a surrogate pair"),
]

WARNED = [
    ('root ::= "a"\nroot ::= "b"', "line 2, column 1: the rule 'root' is defined a second time"),
    ('root ::= "a"{1,5000}', "reads what is over 2,000 as no limit"),
    ('root ::= ("a"?)*', "found a repetition of something that may itself be empty"),
    ("root ::= <think>", "depends on the model"),
]


@pytest.mark.parametrize(("text", "said"), SAID)
def test_an_error_says_where_what_and_what_was_expected(text: str, said: str) -> None:
    first = check_grammar(text)[0]
    assert first.severity is Severity.ERROR
    assert said in str(first)


@pytest.mark.parametrize(("text", "said"), WARNED)
def test_a_warning_says_what_is_read_otherwise_than_it_looks(text: str, said: str) -> None:
    (only,) = check_grammar(text)
    assert only.severity is Severity.WARNING
    assert said in str(only)


def test_every_rule_that_is_not_defined_is_named() -> None:
    assert [problem.line for problem in check_grammar("root ::= a b\nc ::= d a")] == [1, 1, 2]


def test_an_error_comes_before_warnings() -> None:
    severities = [problem.severity for problem in check_grammar('root ::= <think>\nroot ::= "')]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.WARNING]


LARGE = {
    "one long literal": 'root ::= "' + "a" * MAX_TEXT_BYTES,
    "parentheses": "root ::= " + "(" * 1_000_000,
    "alternatives": "root ::= " + '"a" | ' * 170_000,
    "repetitions of repetitions": "root ::= " + '"a"{1900} ' * 90_000,
    "optional things": "root ::= " + '"a"? ' * 200_000,
    "stars": "root ::= " + '"a"* ' * 200_000,
    "names": "root ::= " + " ".join(f"n{i}" for i in range(120_000)),
    "rules": "\n".join(f'n{i} ::= "a"' for i in range(60_000)),
    "a class": "root ::= [" + "a-z" * 340_000,
    "quotes": '"' * MAX_TEXT_BYTES,
    "a comment": "#" * MAX_TEXT_BYTES,
    "spaces": " " * MAX_TEXT_BYTES,
    "lines": "\n" * MAX_TEXT_BYTES,
    "escapes": 'root ::= "' + "\\x41" * 250_000,
    "a long number": 'root ::= "a"{' + "9" * 1_000_000 + "}",
    "a long token": "root ::= <[" + "9" * 1_000_000 + "]>",
    "ways that double": "\n".join(f"a{i} ::= a{i + 1} | a{i + 1}" for i in range(30_000)),
    "a chain": "root ::= a0\n" + "\n".join(f"a{i} ::= a{i + 1}" for i in range(40_000)) + '\na40000 ::= "a"',
    "too long": "#" * (MAX_TEXT_BYTES + 1),
}


@pytest.mark.parametrize("what", LARGE)
def test_large_texts_come_to_an_end(what: str) -> None:
    assert check_grammar(LARGE[what]) != ()


def test_the_limits_of_ours_are_where_they_are_said_to_be() -> None:
    assert check_grammar("root ::= " + "(" * MAX_NESTING + '"a"' + ")" * MAX_NESTING) == ()
    assert check_grammar("root ::= " + "(" * (MAX_NESTING + 1) + '"a"' + ")" * (MAX_NESTING + 1)) != ()
    assert check_grammar('root ::= "' + "a" * (MAX_ELEMENTS - 1) + '"') == ()
    assert check_grammar('root ::= "' + "a" * MAX_ELEMENTS + '"') != ()


PIECES = [*'()[]^"*+?{},#.<>!-_|é😀', "root", "a", "b-1", "::=", "2", "9999", "\\", "\\x41", "\\u", '"a"', "[a-z]"]
PIECES += ["\n", "\r\n", " ", "\t", "\0"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60))
def test_no_text_raises_anything(text: str) -> None:
    lines = text.count("\n") + 1
    for problem in check_grammar(text):
        assert problem.message
        assert problem.line is None or 1 <= problem.line <= lines
        assert problem.column is None or problem.column >= 1
