"""What a chat template is: no Jinja, no conversation, or what it does with a system message."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.core.text.system_prompt import Placement
from llamamodel_operator.core.text.template import SystemMessage, TemplateReport, examine_template, render

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
DROPS = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)
PARTS = "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
PARTS_NO_SYSTEM = "{% for m in messages if m.role == 'user' %}{{ m.content[0].text }}{% endfor %}"

PLACED = [
    (CHATML, SystemMessage.KEPT, Placement.SYSTEM),
    (REFUSES, SystemMessage.REFUSED, Placement.FIRST_USER),
    (DROPS, SystemMessage.DROPPED, Placement.FIRST_USER),
    (ALTERNATES, SystemMessage.REFUSED, Placement.FIRST_USER),
    (PARTS, SystemMessage.KEPT, Placement.SYSTEM_PARTS),
    (PARTS_NO_SYSTEM, SystemMessage.DROPPED, Placement.FIRST_USER_PARTS),
]

NOT_USABLE = [
    ("{% if %}", Severity.ERROR, "line 1: this is no Jinja: Expected an expression"),
    ("a\n{{ messages", Severity.ERROR, "line 2: this is no Jinja: unexpected end of template"),
    ("{% do x %}", Severity.ERROR, "unknown tag 'do'"),
    ("no message at all", Severity.ERROR, "does not get into the prompt"),
    ("", Severity.ERROR, "does not get into the prompt"),
    ("{{ raise_exception('never') }}", Severity.ERROR, "refuses the conversation: never"),
    ("{{ 1 / 0 }}", Severity.WARNING, "rendering a conversation failed: division by zero"),
    ("{% include 'x' %}", Severity.WARNING, "no loader"),
    ("{{ lipsum() }}", Severity.WARNING, "'lipsum' is undefined"),
    ("{{ 'a' * 1000000000 }}", Severity.ERROR, "too long"),
    ("{{ 9 ** 9 ** 9 ** 9 }}", Severity.ERROR, "too large"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", Severity.ERROR, "takes too much to render"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", Severity.ERROR, "nested too deep"),
    ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, Severity.ERROR, "nested too deep"),
    ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", Severity.ERROR, "more than 4,000,000 characters"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", Severity.ERROR, "takes too much"),
    ("\0", Severity.ERROR, "control character"),
    ("x" * 1_100_000, Severity.ERROR, "1,048,576 at most"),
]


@pytest.mark.parametrize(("text", "system", "placement"), PLACED)
def test_what_a_template_does_with_a_system_message_says_where_a_prompt_goes(
    text: str, system: SystemMessage, placement: Placement
) -> None:
    report = examine_template(text, system_prompt="You are X.")
    assert (report.problems, report.system, report.placement) == ((), system, placement)
    assert report.prompt_rendered is True


@pytest.mark.parametrize(("text", "severity", "said"), NOT_USABLE, ids=lambda value: str(value)[:40])
def test_a_template_that_cannot_be_used_has_a_problem_that_says_why(text: str, severity: Severity, said: str) -> None:
    report = examine_template(text)
    (only,) = report.problems
    assert (only.severity, report.system, report.placement) == (severity, SystemMessage.UNKNOWN, None)
    assert said in str(only)


def test_a_prompt_that_the_template_cuts_is_seen() -> None:
    cuts = "{% for m in messages %}{{ m.content[:20] }}{% endfor %}"
    assert examine_template(cuts, system_prompt="short").prompt_rendered is True
    assert examine_template(cuts, system_prompt="long " * 10).prompt_rendered is False


AS_LLAMA = [
    ("{% if true %}\n  {% if true %}\nx\n{% endif %}\n{% endif %}", "x\n"),
    ("{{ nothing.at.all }}{{ 'a' + nothing }}", "a"),
    ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
    ("{% generation %}x{% endgeneration %}", "x"),
    ("{{ {'ä': '<&>'} | tojson }}", '{"ä": "<&>"}'),
    ("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", "<s></s>True"),
    ("{{ strftime_now('%Y') | length }}", "4"),
    ("{{ tools is defined }}", "False"),
]


@pytest.mark.parametrize(("text", "expected"), AS_LLAMA)
def test_templates_are_rendered_as_llama_server_does(text: str, expected: str) -> None:
    assert render(text, messages=[]) == expected


@pytest.mark.parametrize("text", [CHATML, "{% if %}", REFUSES])
def test_a_report_survives_a_way_through_json(text: str) -> None:
    report = examine_template(text, system_prompt="x")
    assert TemplateReport.from_dict(json.loads(json.dumps(asdict(report)))) == report
