"""What a chat template is: whether it is Jinja, whether it renders a conversation, what it does with a system message.

`examine_template` runs the template. It is bounded in nothing but what the sandbox of jinja2 bounds: call it through
`shell.sandbox`, which bounds its time and memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from jinja2 import ChainableUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.problem import Problem, text_problem
from llamamodel_operator.core.text.system_prompt import Placement, with_system_prompt

__all__ = ["MAX_RENDERED_CHARACTERS", "SystemMessage", "TemplateReport", "examine_template", "render"]

MAX_RENDERED_CHARACTERS = 4_000_000
"""Of a rendered conversation of a few words, besides the system prompt: more is a loop that went wrong."""

_NOW = datetime(2026, 1, 1)
"""For strftime_now; the day is of no matter."""

_SYSTEM_TEXT, _USER_TEXT = "SystemMarker7", "UserMarker7"


class SystemMessage(StrEnum):
    """What a template does with a first message of the role `system`."""

    KEPT = "kept"
    """Its text is in the prompt."""
    REFUSED = "refused"
    """The template raises an error."""
    DROPPED = "dropped"
    """Its text is not in the prompt."""
    UNKNOWN = "unknown"
    """The template cannot be examined; problems say why."""


@dataclass(frozen=True, kw_only=True)
class TemplateReport:
    """What became known of a template.

    Attributes:
        problems: what is wrong with it.
        system: what it does with a system message.
        placement: where a system prompt must go; None where the template cannot be examined.
        prompt_rendered: whether the wrapped template puts the system prompt into the prompt; None where none was
            given or nothing was rendered.
    """

    problems: tuple[Problem, ...] = ()
    system: SystemMessage = SystemMessage.UNKNOWN
    placement: Placement | None = None
    prompt_rendered: bool | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TemplateReport:
        """The reverse of `dataclasses.asdict`, after a way through JSON."""
        return cls(
            problems=tuple(
                Problem(**{**problem, "severity": Severity(problem["severity"])}) for problem in fields["problems"]
            ),
            system=SystemMessage(fields["system"]),
            placement=Placement(fields["placement"]) if fields["placement"] else None,
            prompt_rendered=fields["prompt_rendered"],
        )


def examine_template(text: str, *, system_prompt: str | None = None) -> TemplateReport:
    """Parses a chat template and renders conversations with it, as llama-server does.

    Args:
        text: the template.
        system_prompt: one that shall be put in by `with_system_prompt`, to see whether it gets into the prompt.
    """
    if problem := text_problem(text, what="chat template"):
        return TemplateReport(problems=(problem,))
    try:
        rendering = _compile(text)
        user, content = _first_that_renders(rendering)
    except _RenderError as error:
        return TemplateReport(problems=(error.problem,))
    system, system_content = _system_message(rendering, user)
    placement = Placement.SYSTEM if system_content is str else Placement.SYSTEM_PARTS
    if system is not SystemMessage.KEPT:
        placement = Placement.FIRST_USER_PARTS if content is list else Placement.FIRST_USER
    rendered = None
    problems: tuple[Problem, ...] = ()
    if system_prompt is not None:
        wrapped = with_system_prompt(text, system_prompt, placement=placement)
        try:
            rendered = _contains(_compile(wrapped)(messages=[user]), system_prompt)
        except _RenderError as error:
            rendered, problems = False, (error.problem,)
    return TemplateReport(problems=problems, system=system, placement=placement, prompt_rendered=rendered)


def render(text: str, **variables: Any) -> str:
    """The prompt that a template makes of `messages`, `tools` and whatever else. Raises ValueError with the reason.

    Like `examine_template`, this is for a bounded process.
    """
    try:
        return _compile(text)(**variables)
    except _RenderError as error:
        raise ValueError(str(error.problem)) from error


class _RenderError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _RefusedError(TemplateError):
    """The template called raise_exception."""


class _Undefined(ChainableUndefined):
    """As in llama.cpp (common/jinja/runtime.cpp): a member of nothing is nothing, and adds nothing to a text."""

    def _empty(self, other: object) -> Any:
        return other if isinstance(other, str) else self._fail_with_undefined_error()

    __add__ = __radd__ = _empty


class _Generation(Extension):
    """`{% generation %}`, a mark for training that llama.cpp passes over."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        # one operation of this kind can take all memory and time before anything looks at it
        if operator == "**" and (abs(left) > 2**32 or abs(right) > 64):
            raise SecurityError(f"{left!r:.20} ** {right!r:.20} is too large")
        for many, times in ((left, right), (right, left)):
            if operator == "*" and hasattr(many, "__len__") and isinstance(times, int) and len(many) * times > 10**6:
                raise SecurityError(f"a text or list repeated {times} times is too long")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: object = "") -> NoReturn:
    raise _RefusedError(str(message)[:300])


def _tojson(value: Any, indent: int | None = None, separators: Any = None, sort_keys: bool = False, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=_Undefined,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    for unknown in ("lipsum", "cycler", "joiner"):  # to llama.cpp's engine
        del environment.globals[unknown]
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: _NOW.strftime(form),
    }
    environment.filters["tojson"] = _tojson
    return environment


def _compile(text: str) -> Callable[..., str]:
    try:
        template = _environment().from_string(text)
    except TemplateSyntaxError as error:
        message = f"this is no Jinja: {error.message}"
        raise _RenderError(Problem(message=message, line=error.lineno)) from error
    except (RecursionError, MemoryError, OverflowError, SyntaxError) as error:
        message = "the template is nested too deep, expected what llama-server can read: simplify it"
        raise _RenderError(Problem(message=message)) from error
    except Exception as error:
        raise _RenderError(Problem(message=f"this is no Jinja: {_said(error)}")) from error

    def rendering(**variables: Any) -> str:
        # as common_chat_template_direct_apply_impl in common/chat.cpp; without tools, there is no such variable
        known = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "enable_thinking": True}
        try:
            return "".join(_bounded(template.generate(**known | variables)))
        except _RefusedError as error:
            message = f"the template refuses the conversation: {_said(error)}"
            raise _RenderError(Problem(message=message)) from error
        except (RecursionError, MemoryError, SecurityError) as error:
            message = f"the template takes too much to render: {_said(error)}"
            raise _RenderError(Problem(message=message)) from error
        except Exception as error:  # whatever the template did; llama.cpp's engine may be of another opinion
            message = f"rendering a conversation failed: {_said(error)}"
            raise _RenderError(Problem(message=message, severity=Severity.WARNING)) from error

    return rendering


def _bounded(chunks: Iterator[str]) -> Iterator[str]:
    length = 0
    for chunk in chunks:
        length += len(chunk)
        if length > MAX_RENDERED_CHARACTERS:
            raise SecurityError(f"it rendered more than {MAX_RENDERED_CHARACTERS:,} characters")
        yield chunk


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _message(role: str, text: str, content: type) -> dict[str, Any]:
    return {"role": role, "content": text if content is str else [{"type": "text", "text": text}]}


def _first_that_renders(rendering: Callable[..., str]) -> tuple[dict[str, Any], type]:
    """A user message whose text gets into the prompt: with a string as its content, else with a list of parts."""
    problem = Problem(message="the text of a user's message does not get into the prompt: use it as message['content']")
    for content in (str, list):
        user = _message("user", _USER_TEXT, content)
        try:
            if _USER_TEXT in rendering(messages=[user]):
                return user, content
        except _RenderError as error:
            if content is str:
                problem = error.problem
    raise _RenderError(problem)


def _system_message(rendering: Callable[..., str], user: dict[str, Any]) -> tuple[SystemMessage, type]:
    found = SystemMessage.DROPPED
    for content in (str, list):
        try:
            if _SYSTEM_TEXT in rendering(messages=[_message("system", _SYSTEM_TEXT, content), user]):
                return SystemMessage.KEPT, content
        except _RenderError:
            found = SystemMessage.REFUSED if content is str else found
    return found, str


def _contains(rendered: str, prompt: str) -> bool:
    """Templates trim, and some change what is between lines."""
    return "".join(prompt.split()) in "".join(rendered.split())
