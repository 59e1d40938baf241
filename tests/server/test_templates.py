"""System prompts in chat templates: rendered by jinja2 for the whole of llama.cpp's collection, and by the server."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.core.text.system_prompt import MAX_SYSTEM_PROMPT_BYTES, Placement, with_system_prompt
from llamamodel_operator.core.text.template import SystemMessage, examine_template, render

from .collection import templates
from .conftest import NoStartError, Start

PROMPT = 'You are "X" \\ Y\'s.\nSecond line. {% raw %}{{ messages }} {# no comment #} %} }} äöü 漢字 😀'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Where"}},
                "required": ["place"],
            },
        },
    }
]
HELLO = {"role": "user", "content": "Hello there"}
ANSWER = {"role": "assistant", "content": "Yes"}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image"}]}
TWO_PARTS = {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one message": [HELLO],
    "three messages": [HELLO, ANSWER, HELLO],
    "an image": [PICTURE],
    "an image later": [HELLO, ANSWER, PICTURE],
}
REFUSING = "google-gemma-2-2b-it"
ON_THE_SERVER = (
    REFUSING,
    "Qwen-Qwen3-0.6B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "openai-gpt-oss-120b",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "google-gemma-4-31B-it",
    "deepseek-ai-DeepSeek-V3.1",
    "microsoft-Phi-3.5-mini-instruct",
)
"""One start of the server each, so not all of them."""


@pytest.fixture(scope="module")
def collection() -> dict[str, str]:
    found = templates()
    assert len(found) > 60
    return found


def outcome(template: str, **variables: Any) -> str:
    try:
        return render(template, **variables)
    except ValueError as error:
        return f"refused: {error}"


def merged(message: dict[str, Any], prompt: str = PROMPT) -> dict[str, Any]:
    """As llama-server does for templates that know no system message."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{prompt}\n{content}"}
    return {**message, "content": [{"type": "text", "text": f"{prompt}\n"}, *content]}


def test_wrapped_and_plain_templates_render_alike(collection: dict[str, str]) -> None:
    differ: list[tuple[str, str, bool, str]] = []
    for name, text in collection.items():
        report = examine_template(text, system_prompt=PROMPT)
        assert (report.problems, report.prompt_rendered) == ((), True), name
        assert report.placement is (Placement.FIRST_USER if name == REFUSING else Placement.SYSTEM), name
        wrapped = with_system_prompt(text, PROMPT, placement=report.placement)
        for (what, messages), tools in itertools.product(CONVERSATIONS.items(), (False, True)):
            more: dict[str, Any] = {"tools": TOOLS} if tools else {}
            for role in ("", "system", "developer"):
                prompt = "My own" if role else PROMPT
                asked = [{"role": role, "content": prompt}, *messages] if role else messages
                shown = [{"role": role or "system", "content": prompt}, *messages]
                if report.placement.in_user_message:  # the server merges before it renders the plain template
                    shown = [merged(messages[0], prompt), *messages[1:]]
                if outcome(wrapped, messages=asked, **more) != outcome(text, messages=shown, **more):
                    differ.append((name, what, tools, role))
    assert differ == []


@pytest.mark.parametrize("name", ON_THE_SERVER)
def test_the_server_renders_wrapped_and_plain_templates_alike(
    start_server: Start, collection: dict[str, str], tmp_path: Path, name: str
) -> None:
    text = collection[name]
    placement = examine_template(text).placement
    assert placement is not None
    asked: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        ([HELLO], {}),
        ([HELLO, ANSWER, HELLO], {}),
        ([HELLO], {"tools": TOOLS}),
        ([TWO_PARTS], {}),
    ]
    own = [[{"role": role, "content": "My own"}, HELLO] for role in ("system", "developer")]
    (tmp_path / "plain").write_text(text)
    (tmp_path / "wrapped").write_text(with_system_prompt(text, PROMPT, placement=placement))
    with start_server("--chat-template-file", str(tmp_path / "plain")) as plain:
        # the server cannot itself put a system message before parts
        there = [message for message in asked if not (placement.in_user_message and TWO_PARTS in message[0])]
        expected = [
            plain.prompt_of([{"role": "system", "content": PROMPT}, *messages], **more) for messages, more in there
        ]
        expected_own = [plain.prompt_of(messages) for messages in own]
    with start_server("--chat-template-file", str(tmp_path / "wrapped")) as wrapped:
        assert [wrapped.prompt_of(messages, **more) for messages, more in there] == expected
        assert [wrapped.prompt_of(messages) for messages in own] == expected_own
        assert "You are" in wrapped.prompt_of([TWO_PARTS])
        answer = wrapped.post("/v1/chat/completions", messages=[HELLO], max_tokens=2)
        assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    "prompt",
    [
        "plain",
        "{{ messages }}{% raw %}{% endraw %}{% if %}",
        'back\\slash \\n \\u0041 \\" end\\',
        "line\nline\r\nline\n",
        "tabs\tand 'both' \"quotes\"",
        "-%} {%- #} {# }}",
        "ünï 漢字 😀\u200d\u2028\u0085",
        ("long " * (MAX_SYSTEM_PROMPT_BYTES // 5))[:MAX_SYSTEM_PROMPT_BYTES],
    ],
    ids=lambda prompt: repr(prompt)[:30],
)
def test_a_prompt_is_data_whatever_it_contains(start_server: Start, tmp_path: Path, prompt: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
    file = tmp_path / "template"
    file.write_bytes(with_system_prompt(template, prompt, placement=Placement.SYSTEM).encode())
    with start_server("--chat-template-file", str(file)) as server:
        assert server.prompt_of([HELLO]) == f"[system|{prompt}][user|Hello there]"
        assert server.prompt_of([{"role": "system", "content": "Own"}, HELLO]) == "[system|Own][user|Hello there]"


def test_a_system_message_in_a_template_that_refuses_it_ends_the_server(
    start_server: Start, collection: dict[str, str], tmp_path: Path
) -> None:
    """Which is why the prompt goes into the first user message there."""
    text = collection[REFUSING]
    assert examine_template(text).system is SystemMessage.REFUSED
    (tmp_path / "wrong").write_text(with_system_prompt(text, PROMPT, placement=Placement.SYSTEM))
    with (
        pytest.raises(NoStartError, match="System role not supported"),
        start_server("--chat-template-file", str(tmp_path / "wrong")),
    ):
        pass


@pytest.mark.parametrize("text", ["{% if %}", "{{ messages", "{% for m in messages %}", "{% do x %}"])
def test_what_we_call_no_jinja_the_server_refuses(start_server: Start, tmp_path: Path, text: str) -> None:
    assert examine_template(text).problems
    (tmp_path / "template").write_text(text)
    with pytest.raises(NoStartError), start_server("--chat-template-file", str(tmp_path / "template")):
        pass
