"""The texts of a LlamaModel: checked, put together, and laid out as files for llama-server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.sources import ChatTemplate, ConfigMapKey, Grammar, SystemPrompt
from llamamodel_operator.api.spec import LlamaModelSpec, Task
from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.engine.settings import JINJA_PRESET, TextPaths
from llamamodel_operator.core.facts import Facts, Missing
from llamamodel_operator.core.objects.deployment import file_path
from llamamodel_operator.core.text.builtin_grammars import builtin_grammar
from llamamodel_operator.core.text.grammar import check_grammar
from llamamodel_operator.core.text.json_schema import check_json_schema
from llamamodel_operator.core.text.problem import Problem
from llamamodel_operator.core.text.system_prompt import check_system_prompt, with_system_prompt

__all__ = ["Texts", "chat_template_text", "plan_texts", "referenced_keys", "text_of"]

_LARGEST_BYTES = 1_000_000
"""Of all texts together: a ConfigMap takes 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Attributes:
    files: content by file name, for the ConfigMap.
    paths: what the command line names.
    findings: what is wrong with them.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    paths: TextPaths = field(default_factory=TextPaths)
    findings: tuple[Finding, ...] = ()


def referenced_keys(spec: LlamaModelSpec) -> tuple[ConfigMapKey, ...]:
    """The keys of ConfigMaps that the texts of a spec come from."""
    sources = (spec.chat_template, spec.grammar, spec.system_prompt)
    return tuple(dict.fromkeys(s.config_map_key_ref for s in sources if s and s.config_map_key_ref))


def text_of(config_map: Mapping[str, Any], ref: ConfigMapKey) -> str | Missing:
    """What a key of a ConfigMap, as the API server or a manifest has it, holds."""
    data = config_map.get("data")
    texts: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    if isinstance(texts.get(ref.key), str):
        return str(texts[ref.key])
    if ref.key in texts:
        return Missing(message=f"key {ref.key} of ConfigMap {ref.name} holds no text: put it into quotes")
    binary = config_map.get("binaryData")
    if isinstance(binary, Mapping) and ref.key in binary:
        return Missing(message=f"key {ref.key} of ConfigMap {ref.name} holds binary data, not text")
    there = f"; it has {', '.join(sorted(map(str, texts))[:8])}" if texts else "; it is empty"
    return Missing(message=f"ConfigMap {ref.name} has no key {ref.key}{there}")


def chat_template_text(spec: LlamaModelSpec, facts: Facts) -> str | None:
    """The chat template as far as it is known here; None for presets and files on volumes. The GGUF's own, as the
    inspection has read it, is of interest where a system prompt is put into it; else llama-server finds it itself."""
    template = spec.chat_template
    if template is None:
        inspected = facts.inspection.model if facts.inspection is not None and spec.system_prompt is not None else None
        return (inspected.text("tokenizer.chat_template") or None) if inspected is not None else None
    if template.inline is not None:
        return template.inline
    found = facts.texts.get(template.config_map_key_ref) if template.config_map_key_ref else None
    return found if isinstance(found, str) else None


def plan_texts(model: LlamaModel, *, facts: Facts, catalogue: Catalogue, exact: bool, folder: str) -> Texts:
    """Checks the texts and lays them out.

    Args:
        model: the LlamaModel.
        facts: what ConfigMaps hold, and what examining the chat template gave.
        catalogue: of the build that will run; it knows the built-in chat templates.
        exact: whether the catalogue is that of the build that will run.
        folder: where the files will be in the container.
    """
    layout = _Layout(model.spec, facts, catalogue, exact, folder)
    layout.chat_template()
    layout.grammar()
    if sum(len(text.encode()) for text in layout.files.values()) > _LARGEST_BYTES:
        layout.say(
            Severity.ERROR,
            FindingCode.INVALID_FIELD,
            "spec",
            f"chat template, system prompt and grammar take more than {_LARGEST_BYTES} bytes together",
            "put them into files on the volume",
        )
    return Texts(files=layout.files, paths=TextPaths(**layout.paths), findings=tuple(layout.findings))


class _Layout:
    """One layout under way."""

    def __init__(self, spec: LlamaModelSpec, facts: Facts, catalogue: Catalogue, exact: bool, folder: str) -> None:
        self._exact = exact
        self._spec = spec
        self._facts = facts
        self._catalogue = catalogue
        self._folder = folder
        self.files: dict[str, str] = {}
        self.paths: dict[str, str] = {}
        self.findings: list[Finding] = []

    def say(
        self, severity: Severity, code: FindingCode, field: str, message: str, suggestion: str | None = None
    ) -> None:
        self.findings.append(Finding(severity=severity, code=code, field=field, message=message, suggestion=suggestion))

    def _put(self, kind: str, name: str, text: str) -> None:
        self.files[name] = text
        self.paths[kind] = f"{self._folder}/{name}"

    def _referenced(self, field: str, source: ChatTemplate | Grammar | SystemPrompt) -> str | None:
        """The text that a reference leads to; None, and a finding, where it leads nowhere or nobody could look."""
        ref = source.config_map_key_ref
        if ref is None:
            return None
        found = self._facts.texts.get(ref)
        where = f"spec.{field}.configMapKeyRef"
        if isinstance(found, Missing):
            self.say(
                Severity.ERROR,
                FindingCode.TEXT_MISSING,
                where,
                found.message,
                f"create ConfigMap {ref.name} with a key {ref.key}, or correct the reference",
            )
        elif found is None:
            self.say(
                Severity.INFO,
                FindingCode.TEXT_NOT_SEEN,
                where,
                f"key {ref.key} of ConfigMap {ref.name} is not looked at here; the operator checks it",
            )
        return found if isinstance(found, str) else None

    def chat_template(self) -> None:
        """The template, with the system prompt in it where there is one."""
        source = self._spec.chat_template
        prompt = self._prompt()
        if source is not None and source.preset is not None:
            self._preset(source.preset)
        elif source is not None and source.pvc is not None:
            self.paths["chat_template"] = file_path(source.pvc)
        text = chat_template_text(self._spec, self._facts)
        if source is not None and source.config_map_key_ref is not None:
            self._referenced("chatTemplate", source)
        if text is not None and source is None:
            self._put_own(text, prompt)
        elif text is not None:
            self._examined("inline" if source and source.inline is not None else "configMapKeyRef")
            self._put("chat_template", "chat-template.jinja", self._with_prompt(text, prompt))
        elif prompt is not None:
            self._unused(self._why_unknown())

    def _put_own(self, text: str, prompt: str | None) -> None:
        """The GGUF's own with the system prompt in it. What is odd about it is no fault of the user's."""
        with_prompt = text if prompt is None else self._with_prompt(text, prompt)
        if with_prompt != text:
            self._put("chat_template", "chat-template.jinja", with_prompt)

    def _preset(self, name: str) -> None:
        self.paths["preset"] = name
        if name not in self._catalogue.chat_templates:
            known = ", ".join(sorted(self._catalogue.chat_templates))
            self.say(
                Severity.ERROR if self._exact else Severity.WARNING,
                FindingCode.UNKNOWN_PRESET,
                "spec.chatTemplate.preset",
                f"b{self._catalogue.build} has no built-in chat template {name!r}; llama-server would take the name"
                " itself as the template, and answer nonsense",
                f"choose one of: {known}",
            )
        elif name != JINJA_PRESET and self._catalogue.find("--no-jinja"):
            self.say(
                Severity.INFO,
                FindingCode.NO_TOOLS_UNDER_PRESET,
                "spec.chatTemplate.preset",
                f"llama-server renders {name!r} without Jinja, and answers requests with tools by an error",
                "for tools give the template in spec.chatTemplate.inline, or leave it to the GGUF's own",
            )

    def _examined(self, kind: str) -> None:
        report = self._facts.template
        for problem in report.problems if report else ():
            self._tell(problem, FindingCode.INVALID_CHAT_TEMPLATE, f"spec.chatTemplate.{kind}")

    def _tell(self, problem: Problem, code: FindingCode, field: str) -> None:
        self.say(problem.severity, code, field, str(problem))

    def _prompt(self) -> str | None:
        source = self._spec.system_prompt
        if source is None:
            return None
        kind = "inline" if source.inline is not None else "configMapKeyRef"
        prompt = source.inline if source.inline is not None else self._referenced("systemPrompt", source)
        for problem in check_system_prompt(prompt) if prompt is not None else ():
            self._tell(problem, FindingCode.INVALID_FIELD, f"spec.systemPrompt.{kind}")
        return prompt

    def _with_prompt(self, template: str, prompt: str | None) -> str:
        if prompt is None:
            return template
        placement = self._facts.template.placement if self._facts.template else None
        if placement is None:
            self._unused("the chat template could not be tried out")
            return template
        if placement.in_user_message:
            self.say(
                Severity.INFO,
                FindingCode.SYSTEM_PROMPT_IN_USER_MESSAGE,
                "spec.systemPrompt",
                "the chat template takes no system message; the system prompt goes before the first user message",
            )
        return with_system_prompt(template, prompt, placement=placement)

    def _why_unknown(self) -> str:
        source = self._spec.chat_template
        if source is None:
            if self._facts.inspection is not None and self._facts.inspection.model is not None:
                return "the GGUF has no chat template"
            return "the model's own chat template is not known here"
        if source.preset is not None:
            return f"the built-in chat template {source.preset!r} cannot be changed"
        return "the chat template is not known here"

    def _unused(self, why: str) -> None:
        self.say(
            Severity.WARNING,
            FindingCode.SYSTEM_PROMPT_UNUSED,
            "spec.systemPrompt",
            f"{why}, so the system prompt cannot be put into it: requests get none unless they bring it",
            "give the template in spec.chatTemplate.inline or spec.chatTemplate.configMapKeyRef",
        )

    def grammar(self) -> None:
        """The grammar or schema that every answer must conform to."""
        source = self._spec.grammar
        if source is None:
            return
        if self._spec.settled_task is not Task.GENERATE:
            self.say(
                Severity.ERROR,
                FindingCode.CONFLICTING_SETTINGS,
                "spec.grammar",
                f"a grammar constrains generated text, and task {self._spec.settled_task} generates none",
                "remove spec.grammar, or set spec.task to generate",
            )
            return
        self.say(
            Severity.WARNING,
            FindingCode.TOOLS_UNDER_GRAMMAR,
            "spec.grammar",
            "tool calls cannot work under a grammar for the whole server: llama-server answers them with text of the"
            " grammar",
            "serve tools from another LlamaModel, or give grammars in requests",
        )
        if source.builtin is not None:
            self._put("grammar", "grammar.gbnf", builtin_grammar(source.builtin))
        elif source.pvc is not None:
            self.paths["grammar"] = file_path(source.pvc)
        elif source.json_schema is not None:
            self._schema(source.json_schema)
        else:
            text = source.inline if source.inline is not None else self._referenced("grammar", source)
            if text is not None:
                kind = "inline" if source.inline is not None else "configMapKeyRef"
                for problem in check_grammar(text):
                    self._tell(problem, FindingCode.INVALID_GRAMMAR, f"spec.grammar.{kind}")
                self._put("grammar", "grammar.gbnf", text)

    def _schema(self, text: str) -> None:
        where = "spec.grammar.jsonSchema"
        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            self.say(Severity.ERROR, FindingCode.INVALID_JSON_SCHEMA, where, f"this is no JSON: {why}")
            return
        for problem in check_json_schema(schema):
            self._tell(problem, FindingCode.INVALID_JSON_SCHEMA, where)
        self._put("json_schema", "schema.json", text)
        self.paths["json_schema_text"] = text
