"""Texts of a LlamaModel: where they come from, what is checked, and which files llama-server gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.facts import Facts, Missing
from llamamodel_operator.core.plan import Plan, make_plan
from llamamodel_operator.core.text.template import examine_template
from llamamodel_operator.core.texts import chat_template_text

from .builders import CONFIGURATION, ModelBuilder, a_model

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)
REF = {"name": "texts", "key": "it"}


def plan(model: ModelBuilder, **config_map: str | Missing) -> Plan:
    """With the given keys of ConfigMap `texts`."""
    facts = Facts(texts={ConfigMapKey(name="texts", key=key): text for key, text in config_map.items()})
    template = chat_template_text(model.build().spec, facts)
    report = None if template is None else examine_template(template)
    return make_plan(model.build(), configuration=CONFIGURATION, facts=Facts(texts=facts.texts, template=report))


def files(made: Plan) -> Mapping[str, str]:
    return next((child["data"] for child in made.objects if "-texts-" in child["metadata"]["name"]), {})


def said(made: Plan) -> list[tuple[str, str, str]]:
    return [
        (str(f.severity), str(f.code), f.field)
        for f in made.findings
        if f.code not in ("BuildUnknown", "ToolsUnderGrammar")
    ]


@pytest.mark.parametrize(
    ("spec", "file", "content", "flag"),
    [
        ({"chatTemplate": {"inline": TEMPLATE}}, "chat-template.jinja", TEMPLATE, "--chat-template-file"),
        ({"chatTemplate": {"configMapKeyRef": REF}}, "chat-template.jinja", "from the map", "--chat-template-file"),
        ({"grammar": {"inline": 'root ::= "a"'}}, "grammar.gbnf", 'root ::= "a"', "--grammar-file"),
        ({"grammar": {"configMapKeyRef": REF}}, "grammar.gbnf", "from the map", "--grammar-file"),
        ({"grammar": {"jsonSchema": '{"type": "object"}'}}, "schema.json", '{"type": "object"}', "--json-schema-file"),
    ],
)
def test_a_text_becomes_a_file_that_the_command_line_names(
    spec: dict[str, Any], file: str, content: str, flag: str
) -> None:
    made = plan(a_model().with_spec(**spec), it="from the map")
    assert files(made) == {file: content}
    assert made.command[made.command.index(flag) + 1] == f"/etc/llamamodel/{file}"


def test_a_file_on_a_volume_is_named_where_it_lies() -> None:
    made = plan(a_model().with_spec(chatTemplate={"pvc": {"claimName": "models", "path": "t.jinja"}}))
    assert files(made) == {}
    assert "/models/models/t.jinja" in made.command


def test_a_preset_is_named_and_an_unknown_one_is_refused() -> None:
    assert "chatml" in plan(a_model().with_spec(chatTemplate={"preset": "chatml"})).command
    bogus = a_model().with_spec(chatTemplate={"preset": "bogus"})
    made = plan(bogus.with_spec(image="example.com/llama.cpp:b11669"))
    assert said(made)[0] == ("error", "UnknownPreset", "spec.chatTemplate.preset")
    assert said(plan(bogus))[0][0] == "warning", "which build will run is not known"


def test_a_preset_other_than_chatml_is_rendered_without_jinja_where_it_would_be_taken_for_a_template() -> None:
    made = plan(a_model().with_spec(chatTemplate={"preset": "vicuna"}))
    assert made.command[made.command.index("--chat-template") - 1] == "--no-jinja"
    assert said(made) == [("info", "NoToolsUnderPreset", "spec.chatTemplate.preset")]
    assert "--no-jinja" not in plan(a_model().with_spec(chatTemplate={"preset": "chatml"})).command


@pytest.mark.parametrize(
    ("field", "text", "code"),
    [
        ("chatTemplate", "{% if %}", "InvalidChatTemplate"),
        ("grammar", "root ::= foo", "InvalidGrammar"),
    ],
)
def test_a_text_that_is_wrong_is_an_error_wherever_it_comes_from(field: str, text: str, code: str) -> None:
    inline = plan(a_model().with_spec(**{field: {"inline": text}}))
    referenced = plan(a_model().with_spec(**{field: {"configMapKeyRef": REF}}), it=text)
    assert said(inline) == [("error", code, f"spec.{field}.inline")]
    assert said(referenced) == [("error", code, f"spec.{field}.configMapKeyRef")]
    assert "line 1" in inline.findings[0].message


def test_a_missing_text_is_an_error_and_one_that_nobody_looked_at_is_none() -> None:
    model = a_model().with_spec(grammar={"configMapKeyRef": REF})
    missing = plan(model, it=Missing(message="ConfigMap texts does not exist"))
    assert said(missing) == [("error", "TextMissing", "spec.grammar.configMapKeyRef")]
    assert said(plan(model)) == [("info", "TextNotSeen", "spec.grammar.configMapKeyRef")]


def test_another_text_is_another_revision_and_another_config_map() -> None:
    one, other = (plan(a_model().with_spec(grammar={"inline": f'root ::= "{word}"'})) for word in "ab")
    assert one.revision != other.revision
    assert one.objects[0]["metadata"]["name"] != other.objects[0]["metadata"]["name"]


def test_the_system_prompt_is_put_into_the_template() -> None:
    made = plan(a_model().with_spec(chatTemplate={"inline": TEMPLATE}, systemPrompt={"inline": "Be {{ brief }}."}))
    (text,) = files(made).values()
    assert text.endswith(TEMPLATE)
    assert "Be {{ brief }}." in text
    assert said(made) == []


def test_where_the_template_refuses_a_system_message_the_prompt_goes_to_the_user() -> None:
    made = plan(a_model().with_spec(chatTemplate={"inline": NO_SYSTEM}, systemPrompt={"inline": "Be brief."}))
    assert said(made) == [("info", "SystemPromptInUserMessage", "spec.systemPrompt")]


@pytest.mark.parametrize("template", [None, {"preset": "chatml"}, {"pvc": {"claimName": "models", "path": "t.jinja"}}])
def test_a_prompt_that_cannot_be_put_in_place_is_said_to_be_unused(template: object) -> None:
    model = a_model().with_spec(systemPrompt={"inline": "Be brief."})
    made = plan(model.with_spec(chatTemplate=template) if template else model)
    assert said(made) == [("warning", "SystemPromptUnused", "spec.systemPrompt")]


def test_a_grammar_warns_of_tool_calls_and_is_refused_where_nothing_is_generated() -> None:
    made = plan(a_model().with_spec(grammar={"builtin": "json"}))
    assert [f.code for f in made.findings if f.severity == "warning"] == ["ToolsUnderGrammar"]
    made = plan(a_model().with_spec(grammar={"builtin": "json"}, task="embed"))
    assert said(made) == [("error", "ConflictingSettings", "spec.grammar")]


def test_texts_that_no_config_map_takes_are_refused() -> None:
    made = plan(a_model().with_spec(grammar={"configMapKeyRef": REF}), it="#" + "x" * 1_000_001)
    assert ("error", "InvalidField", "spec") in said(made)
