"""What the operator would make of a manifest: the very functions that the webhook and the reconciler call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.cli.manifests import Manifest
from llamamodel_operator.core.plan import Configuration, Plan
from llamamodel_operator.core.review import LookUp, as_stored, review_manifest
from llamamodel_operator.core.schema_check import check_schema, without_nulls
from llamamodel_operator.core.text.problem import Problem
from llamamodel_operator.core.text.template import TemplateReport

__all__ = ["Checked", "Checker", "a_checker"]

_PASSED_ON = ("affinity", "env", "podSecurityContext", "tolerations", "topologySpreadConstraints")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A manifest and what is to be said about it.

    Attributes:
        findings: errors first.
        model: None where the types refuse the manifest.
        plan: None where there is no model.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    model: LlamaModel | None = None
    plan: Plan | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings for which the operator would apply nothing."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


@dataclass(frozen=True, kw_only=True)
class Checker:
    """Attributes:
    configuration: of the operator.
    text: what the key of a ConfigMap holds, in the namespace of a LlamaModel; None where nobody can look.
    examine: tells what a chat template does, within bounds of time and memory.
    """

    configuration: Configuration
    text: LookUp
    examine: Callable[[str], TemplateReport]

    def check(self, manifest: Manifest) -> Checked:
        """Never raises for what the user wrote."""
        by_schema = check_schema(manifest.raw)
        raw = _plannable(manifest, told=by_schema)
        if raw is None:
            return Checked(manifest=manifest, findings=by_schema)
        review = review_manifest(
            raw,
            configuration=self.configuration,
            # without a namespace of its own a manifest goes with the ConfigMaps beside it, whatever theirs
            look_up=lambda key, _: self.text(key, manifest.namespace),
            examine=self.examine,
        )
        findings = _together(by_schema, review.findings)
        return Checked(manifest=manifest, findings=findings, model=review.model, plan=review.plan)


@contextmanager
def a_checker(configuration: Configuration, text: LookUp) -> Iterator[Checker]:
    """A checker with a sandbox for chat templates, which starts its process when it is needed."""
    from llamamodel_operator.shell.sandbox import SandboxUnavailableError, TemplateSandbox

    with TemplateSandbox() as sandbox:

        def examine(template: str) -> TemplateReport:
            try:
                return sandbox.examine(template)
            except SandboxUnavailableError as error:
                return TemplateReport(problems=(Problem(message=str(error), severity=Severity.WARNING),))

        yield Checker(configuration=configuration, text=text, examine=examine)


def _plannable(manifest: Manifest, *, told: tuple[Finding, ...]) -> dict[str, Any] | None:
    """The object as the API server would have it, as far as that can be; None where there is no spec at all.

    Whatever is wrong with its metadata has been said; the plan gets a stand-in. The parts that are Kubernetes' own are
    passed on as they are, so one that the API server refuses is left out.
    """
    raw = manifest.raw
    spec = raw.get("spec")
    if not isinstance(spec, Mapping):
        return None
    given = raw.get("metadata")
    metadata = dict(given) if isinstance(given, Mapping) else {}
    for name in ("name", "generateName", "namespace", "uid"):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            metadata.pop(name, None)
    if not isinstance(metadata.get("generation", 0), int):
        del metadata["generation"]
    refused = {part for part in _PASSED_ON for found in told if re.match(rf"spec\.{part}\b", found.field)}
    kept = {key: value for key, value in spec.items() if key not in refused}
    status = {} if manifest.document else raw.get("status")  # the API server takes no status from a manifest
    return as_stored(without_nulls({**raw, "metadata": metadata, "spec": kept, "status": status}))


def _together(by_schema: tuple[Finding, ...], others: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """All findings, errors first. What the schema says of a field, the types need not say again."""
    told = {finding.field for finding in by_schema}
    new = [f for f in others if not (f.code is FindingCode.INVALID_FIELD and f.field in told)]
    order = list(Severity)
    return tuple(sorted([*by_schema, *new], key=lambda finding: order.index(finding.severity)))
