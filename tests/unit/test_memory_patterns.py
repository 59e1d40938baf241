"""Patterns of -ot: what std::regex_search would find, and none that runs for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.memory.patterns import UnreadablePatternError, matcher_of

NAMES = (
    *("blk.0.ffn_up_exps.weight", "blk.1.ffn_down.weight", "blk.12.ffn_gate_exps.weight", "blk.23.attn_q.weight"),
    *("output.weight", "token_embd.weight"),
)
FOUND = [
    ("exps", "0 2"),
    (r"\.ffn_(up|down|gate|gate_up)_(ch|)exps", "0 2"),
    (r"blk\.(1[0-9]|2[0-3])\.", "2 3"),
    (r"blk\.[[:digit:]]\.", "0 1"),
    (r"blk\.\d+\.ffn_.*", "0 1 2"),
    ("^output", "4"),
    (r"attn_[kqv]\.weight$", "3"),
    ("blk.1", "1 2"),
    ("(?:up|down)_exps", "0"),
    (r"ffn_(?!up)\w+_exps", "2"),
    ("[^a-z0-9._]", ""),
    (r"\bembd", ""),
    ("^token.embd[.]weight$", "5"),
    (".*", "0 1 2 3 4 5"),
    ("", "0 1 2 3 4 5"),
    ("blk\\.[0-9]{2}\\.", "2 3"),
]


@pytest.mark.parametrize(("expression", "numbers"), FOUND)
def test_a_pattern_finds_the_tensors_that_llama_cpp_would(expression: str, numbers: str) -> None:
    search = matcher_of(expression)
    assert " ".join(str(index) for index, name in enumerate(NAMES) if search(name)) == numbers


REFUSED = [
    ("(a+)+$", "a repetition of alternatives or of repetitions"),
    ("(a|a)*$", "a repetition of alternatives or of repetitions"),
    ("((a?){20}b?)+", "repetitions"),
    (".*.*.*.*.*x", "more than 4 repetitions"),
    ("(?<name>a)", "no group that starts with (?"),
    ("(?<=a)b", "no group that starts with (?"),
    ("(?P<name>a)", "no group that starts with (?"),
    ("a**", "a quantifier of a quantifier"),
    ("a++", "a quantifier of a quantifier"),
    ("(a)\\1", "\\1"),
    ("[[:nothing:]]", "no class of characters is called nothing"),
    ("[abc", "a class of characters without its end"),
    ("(abc", "not a regular expression"),
    ("abc)", "not a regular expression"),
    ("*abc", "not a regular expression"),
    ("abc\\", "a backslash at its end"),
    ("a{1", "a { without a count"),
    ("a" * 1001, "it has 1001 characters, expected at most 1000"),
]


@pytest.mark.parametrize(("expression", "message"), REFUSED, ids=lambda value: value[:30])
def test_what_is_not_followed_is_said(expression: str, message: str) -> None:
    with pytest.raises(UnreadablePatternError) as error:
        matcher_of(expression)
    assert message in str(error.value)


@given(st.text("ab.*+?()[]{}|\\^$:01,-d=!<", max_size=24))
def test_any_text_is_searched_in_bounded_time_or_refused(expression: str) -> None:
    try:
        search = matcher_of(expression)
    except UnreadablePatternError:
        return
    search("ab" * 32 + "!")
