"""A system prompt as part of the chat template: put first where a request brings no system message of its own."""

from __future__ import annotations

from enum import StrEnum

from llamamodel_operator.core.text.problem import Problem, text_problem

__all__ = ["MAX_SYSTEM_PROMPT_BYTES", "Placement", "check_system_prompt", "with_system_prompt"]

MAX_SYSTEM_PROMPT_BYTES = 100_000
"""Of a system prompt; more would fill the context of most models."""


class Placement(StrEnum):
    """Where a system prompt goes."""

    SYSTEM = "system"
    """Into a system message whose content is a string."""
    SYSTEM_PARTS = "system-parts"
    """Into a system message whose content is a list of parts, for templates that know no other."""
    FIRST_USER = "first-user"
    """Into the first user message, before what it says."""
    FIRST_USER_PARTS = "first-user-parts"
    """Likewise, for templates that know only lists of parts."""

    @property
    def in_user_message(self) -> bool:
        """Whether the template knows no system message."""
        return self in (Placement.FIRST_USER, Placement.FIRST_USER_PARTS)


def check_system_prompt(prompt: str) -> tuple[Problem, ...]:
    """What is wrong with a system prompt: its size, or characters that are no text."""
    problem = text_problem(prompt, what="system prompt", max_bytes=MAX_SYSTEM_PROMPT_BYTES)
    return (problem,) if problem else ()


def with_system_prompt(template: str, prompt: str, *, placement: Placement) -> str:
    """A template that renders as the given one does, with the prompt where a request has no system message.

    A message of the role `developer` counts as one. What stands before the given template changes `messages` and
    prints nothing; it ends with a line break, which is stripped, so that the template begins as at its own start. It
    uses only what both jinja2 and the engine in llama.cpp (common/jinja) know; the prompt is a literal in it and
    never code.

    Where the prompt goes into the first user message, a system message that a request brings goes there as well, in
    the form in which llama-server does it for templates that know none (`system_message_not_supported` in
    common/chat.cpp): it does so no more when it sees this template use a system message.
    """
    before = _FIRST_USER if placement.in_user_message else _SYSTEM
    content = "__PROMPT__"
    if placement is Placement.SYSTEM_PARTS:
        content = '[{"type": "text", "text": __PROMPT__}]'
    return before.replace("__CONTENT__", content).replace("__PROMPT__", _literal(prompt)) + template


_SYSTEM = """\
{%- set operator_prompt = namespace(given=false) -%}
{%- for message in messages -%}
{%- if message.role == "system" or message.role == "developer" -%}
{%- set operator_prompt.given = true -%}
{%- endif -%}
{%- endfor -%}
{%- if not operator_prompt.given -%}
{%- set messages = [{"role": "system", "content": __CONTENT__}] + messages -%}
{%- endif %}
"""

# `parts` looks into the content of system messages only, so that llama-server finds out of the template itself
# whether it can do with lists.
_FIRST_USER = """\
{%- set operator_prompt = namespace(given=false, text=__PROMPT__, rest=messages, messages=[], placed=false) -%}
{%- for message in messages -%}
{%- if message.role == "system" or message.role == "developer" -%}
{%- set operator_prompt.given = true -%}
{%- endif -%}
{%- endfor -%}
{%- if operator_prompt.given and (messages[0].role == "system" or messages[0].role == "developer") -%}
{%- set operator_prompt.given = false -%}
{%- set operator_prompt.text = messages[0].content -%}
{%- set operator_prompt.rest = messages[1:] -%}
{%- endif -%}
{%- if not operator_prompt.given -%}
{%- if operator_prompt.text is not string -%}
{%- set operator_prompt.parts = operator_prompt.text -%}
{%- set operator_prompt.text = "" -%}
{%- for part in operator_prompt.parts -%}
{%- set operator_prompt.text = operator_prompt.text + ("" if loop.first else "\\n") + part.text -%}
{%- endfor -%}
{%- endif -%}
{%- for message in operator_prompt.rest -%}
{%- if message.role == "user" and not operator_prompt.placed -%}
{%- set operator_prompt.placed = true -%}
{%- if message.content is string -%}
{%- set operator_prompt.content = operator_prompt.text + "\\n" + message.content -%}
{%- else -%}
{%- set operator_prompt.content = [{"type": "text", "text": operator_prompt.text + "\\n"}] + message.content -%}
{%- endif -%}
{%- set operator_prompt.messages = operator_prompt.messages + [{"role": "user", "content": operator_prompt.content}] -%}
{%- else -%}
{%- set operator_prompt.messages = operator_prompt.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- if not operator_prompt.placed -%}
{%- set operator_prompt.messages = [{"role": "user", "content": operator_prompt.text}] + operator_prompt.messages -%}
{%- endif -%}
{%- set messages = operator_prompt.messages -%}
{%- endif %}
"""


def _literal(prompt: str) -> str:
    # llama.cpp's engine knows few escapes, and none with numbers; a raw line break would become "\n" whatever it was
    escaped = prompt.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
