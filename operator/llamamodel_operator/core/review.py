"""What is said about a manifest before anything runs: one function for the webhook and the command line.

Reconciles make the same plan, and show the same findings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel
from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.facts import Facts, Missing
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.core.plan import Configuration, Plan, make_plan
from llamamodel_operator.core.text.template import TemplateReport
from llamamodel_operator.core.texts import chat_template_text, referenced_keys

__all__ = ["Know", "LookUp", "Review", "as_stored", "nobody_knows", "nobody_looks", "review_manifest"]

LookUp: TypeAlias = Callable[[ConfigMapKey, str], str | Missing | None]
"""What the key of a ConfigMap in a namespace holds; None where nobody can look."""

Know: TypeAlias = Callable[[LlamaModel], tuple[Inspection | None, tuple[NodeGpus, ...] | None]]
"""What an earlier inspection of the very files that a LlamaModel names has found, and the nodes; None where nobody
knows."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """What is to be said about an object.

    Attributes:
        findings: errors first.
        model: None where the types refuse the object.
        plan: what the operator would make of it; None where there is no model.
    """

    findings: tuple[Finding, ...]
    model: LlamaModel | None = None
    plan: Plan | None = None


def review_manifest(
    raw: Mapping[str, Any],
    *,
    configuration: Configuration,
    look_up: LookUp,
    examine: Callable[[str], TemplateReport],
    know: Know | None = None,
) -> Review:
    """Everything that can be said about an object. Never raises for what the user wrote.

    Args:
        raw: the object, as a manifest or as the API server has it.
        configuration: of the operator.
        look_up: reads texts from ConfigMaps.
        examine: tells what a chat template does, within bounds of time and memory.
        know: tells what is known of files and nodes; None where nobody knows anything.
    """
    try:
        model = LlamaModel.parse(as_stored(raw), defaults=configuration.defaults)
    except InvalidLlamaModelError as error:
        findings = (
            Finding(severity=Severity.ERROR, code=FindingCode.INVALID_FIELD, field=field, message=problem)
            for field, problem in error.problems
        )
        return Review(findings=tuple(findings))
    texts = {key: look_up(key, model.namespace) for key in referenced_keys(model.spec)}
    known = {key: text for key, text in texts.items() if text is not None}
    inspection, nodes = (know or nobody_knows)(model)
    template = chat_template_text(model.spec, Facts(texts=known, inspection=inspection))
    facts = Facts(
        texts=known,
        template=None if template is None else examine(template),
        inspection=inspection,
        nodes=nodes,
    )
    plan = make_plan(model, configuration=configuration, facts=facts)
    return Review(findings=plan.findings, model=model, plan=plan)


def nobody_looks(_: ConfigMapKey, __: str) -> None:
    """For reviews that ask nobody."""


def nobody_knows(_: LlamaModel) -> tuple[None, None]:
    """For reviews without a cluster."""
    return None, None


def as_stored(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the identity that the API server would give it, as far as it has none yet."""
    metadata = raw.get("metadata")
    given = dict(metadata) if isinstance(metadata, Mapping) else {}
    name = given.get("name") or given.get("generateName") or "unnamed"
    return {**raw, "metadata": {"namespace": "default", "uid": "", **given, "name": name}}
