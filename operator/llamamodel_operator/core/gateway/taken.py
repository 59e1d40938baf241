"""Whether a LlamaModel has its served name at the gateway, and what is said of it where it has not.

A name passes on freely within a namespace. To another namespace it passes only when somebody asks for that: clients of
one team must not be answered by another's model since the first was deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.labels import TAKE_NAME_ANNOTATION
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.gateway.routes import ServedModel, build_routes

__all__ = ["GatewayNames", "NameVerdict", "judge_name", "names_in_status"]


@dataclass(frozen=True, kw_only=True)
class NameVerdict:
    """Attributes:
    refused: it does not get the name by itself, whatever becomes of the one that has it.
    finding: what is to be said; None where it has the name.
    """

    refused: bool = False
    finding: Finding | None = None


def judge_name(
    model: ServedModel, others: Iterable[ServedModel], *, bare_namespaces: frozenset[str] | None
) -> NameVerdict:
    """By the same rule as the gateway routes.

    Args:
        model: of a namespace whose models have bare names.
        others: all that may have its name.
        bare_namespaces: as of `build_routes`.
    """
    routes = build_routes([model, *others], bare_namespaces=bare_namespaces)
    if model not in routes.shadowed:
        return NameVerdict()
    holder, name = routes.by_name.get(model.served_name), model.served_name
    alone = f"this one answers to {model.full_name} alone"
    annotation = f"the annotation {TAKE_NAME_ANNOTATION}: {name}"
    if holder is None:
        return _taken(
            f"a LlamaModel of another namespace had the name {name} at the gateway, and it passes to no other namespace"
            f" by itself: {alone}, although nobody has the name now",
            suggestion=f"to take the name, give this LlamaModel {annotation}; or choose another name",
            refused=True,
        )
    if holder.namespace == model.namespace:
        return _taken(
            f"LlamaModel {holder.full_name} has the name {name} at the gateway, where {alone}",
            suggestion="choose another name; when that one gives it up, it passes on within the namespace",
        )
    return _taken(
        # Not which: whoever reads this may not be allowed to know.
        f"a LlamaModel of another namespace has the name {name} at the gateway, where {alone}",
        suggestion=f"choose another name; when that one gives it up, it passes to this one by {annotation} alone",
        refused=True,
    )


def _taken(message: str, *, suggestion: str, refused: bool = False) -> NameVerdict:
    finding = Finding(
        severity=Severity.WARNING,
        code=FindingCode.NAME_TAKEN,
        field="spec.servedModelName",
        message=message,
        suggestion=suggestion,
    )
    return NameVerdict(refused=refused, finding=finding)


@dataclass(frozen=True, kw_only=True)
class GatewayNames:
    """Attributes:
    has: the bare name that a model has; None where it has none.
    refused: the one that it does not get by itself; None where there is none.
    """

    has: str | None = None
    refused: str | None = None


def names_in_status(model: LlamaModel, verdict: NameVerdict | None) -> GatewayNames:
    """What the status keeps, for this very rule to be held by whoever reads it.

    Args:
        verdict: None where it can have no bare name, as without a gateway: what was refused stays so.
    """
    name = model.served_name
    if verdict is None:
        return GatewayNames(refused=name if model.status.get("refusedName") == name else None)
    return GatewayNames(has=None if verdict.finding else name, refused=name if verdict.refused else None)
