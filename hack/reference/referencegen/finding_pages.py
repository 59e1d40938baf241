"""The pages about what the operator says: findings, conditions, reasons."""

from __future__ import annotations

from collections.abc import Sequence

from llamamodel_operator.api.base import ApiModel
from llamamodel_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from referencegen.errors import IncompleteSourceError
from referencegen.markdown import bullet, code, listed, page, paragraph, prose, table
from referencegen.members import Member, groups_of, members_of
from referencegen.schema import fields_of
from referencegen.types import takes

__all__ = ["conditions_page", "findings_page"]


def findings_page() -> str:
    """Severities and codes."""
    parts = [
        paragraph(
            "What checks have to say about a LlamaModel before anything runs: in the answer to `kubectl apply`, in"
            " `status.findings`, and from `llamamodel validate` and `llamamodel render`. All make the same checks."
        ),
        "## A finding",
        _fields(Finding),
        "## Severities",
        _documented(("severity", ""), members_of(Severity)),
        "## Codes",
        "Codes are stable: programs may rely on them.",
    ]
    for group in groups_of(FindingCode):
        parts += [
            f"### {group.title[:1].upper()}{group.title[1:]}",
            _documented(("code", "what was found"), group.members),
        ]
    return page("Findings", parts)


def conditions_page() -> str:
    """Condition types and reasons."""
    parts = [
        paragraph(
            "What `status.conditions` says about a LlamaModel. What each reason means, what to look at and what to do"
            " is in [../troubleshooting.md](../troubleshooting.md)."
        ),
        "## Types",
        "In the order in which they become true:",
        table(
            ("type", "true when"), [(code(member.value), prose(member.text)) for member in members_of(ConditionType)]
        ),
        paragraph(f"Each is one of {listed(status.value for status in ConditionStatus)}."),
        "## A condition",
        _fields(Condition),
        "## Reasons",
        table(
            ("", "reasons"),
            [(group.title, listed(member.value for member in group.members)) for group in groups_of(Reason)],
        ),
    ]
    return page("Conditions", parts)


def _fields(model: type[ApiModel]) -> str:
    return "\n".join(
        bullet(f"**`{field.name}`**: {takes(field)}", below=prose(field.description)) for field in fields_of(model)
    )


def _documented(head: tuple[str, str], members: Sequence[Member]) -> str:
    for member in members:
        if not member.text:
            raise IncompleteSourceError(
                f"{member.value}: no docstring below it; write one where it is defined, in api/"
            )
    return table(head, [(code(member.value), prose(member.text)) for member in members])
