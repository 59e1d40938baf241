"""A system prompt in front of a chat template: data in every case, and only where a request has none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.text.system_prompt import (
    MAX_SYSTEM_PROMPT_BYTES,
    Placement,
    check_system_prompt,
    with_system_prompt,
)
from llamamodel_operator.core.text.template import render

SHOWS = "{% for m in messages %}[{{ m.role }}|{{ m.content | tojson }}]{% endfor %}"
USER = {"role": "user", "content": "Hi"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}
ASSISTANT = {"role": "assistant", "content": "Yes"}
SYSTEM = {"role": "system", "content": "Own"}

MESSAGES: list[tuple[str, Placement, list[dict[str, Any]], list[dict[str, Any]]]] = [
    ("first", Placement.SYSTEM, [USER], [{"role": "system", "content": "P"}, USER]),
    (
        "as a part",
        Placement.SYSTEM_PARTS,
        [PARTS],
        [{"role": "system", "content": [{"type": "text", "text": "P"}]}, PARTS],
    ),
    ("without messages", Placement.SYSTEM, [], [{"role": "system", "content": "P"}]),
    ("the request's own", Placement.SYSTEM, [SYSTEM, USER], [SYSTEM, USER]),
    ("its own, later", Placement.SYSTEM, [USER, SYSTEM], [USER, SYSTEM]),
    ("a developer's", Placement.SYSTEM, [{**SYSTEM, "role": "developer"}], [{**SYSTEM, "role": "developer"}]),
    ("before the user's", Placement.FIRST_USER, [USER], [{"role": "user", "content": "P\nHi"}]),
    (
        "before the user's parts",
        Placement.FIRST_USER_PARTS,
        [PARTS],
        [{"role": "user", "content": [{"type": "text", "text": "P\n"}, *PARTS["content"]]}],
    ),
    (
        "before the first only",
        Placement.FIRST_USER,
        [USER, ASSISTANT, USER],
        [{"role": "user", "content": "P\nHi"}, ASSISTANT, USER],
    ),
    ("where nobody asks", Placement.FIRST_USER, [ASSISTANT], [{"role": "user", "content": "P"}, ASSISTANT]),
    ("merged as the server does", Placement.FIRST_USER, [SYSTEM, USER], [{"role": "user", "content": "Own\nHi"}]),
    (
        "merged parts",
        Placement.FIRST_USER,
        [{"role": "developer", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, USER],
        [{"role": "user", "content": "A\nB\nHi"}],
    ),
    ("left where it is", Placement.FIRST_USER, [USER, SYSTEM], [USER, SYSTEM]),
]


@pytest.mark.parametrize(
    ("placement", "given_", "expected"), [case[1:] for case in MESSAGES], ids=[c[0] for c in MESSAGES]
)
def test_the_prompt_is_there_where_a_request_has_none(
    placement: Placement, given_: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    wrapped = with_system_prompt(SHOWS, "P", placement=placement)
    assert render(wrapped, messages=given_) == render(SHOWS, messages=expected)


BEGINNINGS = ["", "\n", "\n\n", "  \n", "  {% if true %}\n", "\n  {%- if true %}\n", "{# c #}\n", "{{- 'x' -}}\n "]
BEGINNINGS += ["\t{% if true -%}\n"]


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("beginning", BEGINNINGS, ids=repr)
def test_a_wrapped_template_begins_as_at_its_own_start(beginning: str, placement: Placement) -> None:
    text = beginning + "begin" + ("{% endif %}" if "if true" in beginning else "") + SHOWS
    wrapped = with_system_prompt(text, "P", placement=placement)
    own = [USER, SYSTEM]  # which no placement changes
    assert render(wrapped, messages=own) == render(text, messages=own)


NASTY = st.text(st.sampled_from("{}%#-'\"\\nrtux041 \n\r\t[]raw") | st.characters(exclude_categories=["Cs", "Cc"]))


@given(NASTY)
def test_a_prompt_is_data_whatever_it_contains(prompt: str) -> None:
    raw = "{{ messages[0].content }}"
    assert render(with_system_prompt(raw, prompt, placement=Placement.SYSTEM), messages=[USER]) == prompt
    assert render(with_system_prompt(raw, prompt, placement=Placement.FIRST_USER), messages=[USER]) == prompt + "\nHi"


@given(NASTY)
def test_no_escape_that_llama_server_does_not_know_is_written(prompt: str) -> None:
    wrapped = with_system_prompt("", prompt, placement=Placement.SYSTEM)
    rest = wrapped.replace("\\\\", "")
    assert {rest[i + 1] for i, character in enumerate(rest) if character == "\\"} <= set('"nr')


def test_a_prompt_has_a_longest_length_and_no_control_characters() -> None:
    assert check_system_prompt("a\n" * (MAX_SYSTEM_PROMPT_BYTES // 2)) == ()
    assert "expected 100,000 at most" in str(check_system_prompt("a" * (MAX_SYSTEM_PROMPT_BYTES + 1))[0])
    assert "control character U+0000" in str(check_system_prompt("a\0")[0])
