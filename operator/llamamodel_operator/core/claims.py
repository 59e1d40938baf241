"""How far the volumes of a model reach, by the access modes of their claims, and what follows for its pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = ["Reach", "claim_findings", "reach_of"]

_FOR_MANY_NODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
_FOR_ONE_POD = "ReadWriteOncePod"


class Reach(IntEnum):
    """Where pods can mount the volumes at the same time; the narrowest comes first."""

    ONE_POD = 0
    ONE_NODE = 1
    ANYWHERE = 2


def reach_of(spec: LlamaModelSpec, modes: Mapping[str, tuple[str, ...]]) -> Reach:
    """That of the claim that reaches least. One whose access modes are not known is taken to reach anywhere.

    Args:
        spec: of the model.
        modes: access modes by the name of the claim.
    """
    return min((_reach(modes.get(claim, ())) for claim in spec.claims), default=Reach.ANYWHERE)


def _reach(modes: tuple[str, ...]) -> Reach:
    if not modes or _FOR_MANY_NODES & set(modes):
        return Reach.ANYWHERE
    return Reach.ONE_POD if set(modes) == {_FOR_ONE_POD} else Reach.ONE_NODE


def claim_findings(spec: LlamaModelSpec, modes: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """What the user should know of the claims: pods that are tied to a node, or that can never run."""
    for claim, field in spec.claims.items():
        match _reach(modes.get(claim, ())):
            case Reach.ONE_POD if spec.replicas > 1:
                yield Finding(
                    severity=Severity.WARNING,
                    code=FindingCode.CLAIM_FOR_ONE_POD,
                    field=field,
                    message=f"PersistentVolumeClaim {claim} is ReadWriteOncePod, and spec.replicas is {spec.replicas}:"
                    " one pod gets the volume, the others wait for it",
                    suggestion="set spec.replicas to 1, or use a claim that is ReadOnlyMany or ReadWriteMany",
                )
            case Reach.ONE_NODE:
                yield Finding(
                    severity=Severity.INFO,
                    code=FindingCode.CLAIM_TIES_TO_NODE,
                    field=field,
                    message=f"PersistentVolumeClaim {claim} is ReadWriteOnce: one node at a time mounts it, so"
                    " pods on other nodes wait for it, and a rollout takes the old pod away first",
                    suggestion="use a claim that is ReadOnlyMany or ReadWriteMany to spread pods over nodes",
                )
