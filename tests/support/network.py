"""What a network lets through that enforces NetworkPolicies, by the text of networking.k8s.io/v1.

A connection is let through where the policies of the one who opens it let it out, and those of the one who takes it
let it in. Where no policy of a direction selects a pod, all goes in that direction. Traffic between a pod and its own
node is never stopped, so probes and the kubelet's hooks are not asked for here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

__all__ = ["Party", "Port", "let_through"]


@dataclass(frozen=True)
class Port:
    """Where a connection goes to: the number in the pod, after any Service was resolved."""

    number: int
    protocol: str = "TCP"


@dataclass(frozen=True)
class Party:
    """One end of a connection.

    Attributes:
        namespace: of a pod; None for what is no pod of the cluster's network.
        labels: of the pod.
        ports: of the pod's containers, by name.
        address: of what is no pod; pods are not found by it.
    """

    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = "192.0.2.1"

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        """The label that the API server gives each namespace; others are not known here."""
        return {"kubernetes.io/metadata.name": self.namespace or ""}


def let_through(policies: Iterable[Mapping[str, Any]], *, source: Party, to: Party, port: Port) -> bool:
    """Whether a connection comes about."""
    known = list(policies)
    out = _lets(known, source, to, direction="Egress", target=to, port=port)
    return out and _lets(known, to, source, direction="Ingress", target=to, port=port)


def _lets(
    policies: list[Mapping[str, Any]], pod: Party, peer: Party, *, direction: str, target: Party, port: Port
) -> bool:
    of_pod = [policy for policy in policies if _concerns(policy, pod, direction)]
    if not of_pod:
        return True
    key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return any(
        _is_one_of(rule.get(peers), peer, policy["metadata"]["namespace"]) and _has(rule.get("ports"), target, port)
        for policy in of_pod
        for rule in policy["spec"].get(key) or []
    )


def _concerns(policy: Mapping[str, Any], pod: Party, direction: str) -> bool:
    spec = policy["spec"]
    kinds = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    here = pod.namespace is not None and policy["metadata"]["namespace"] == pod.namespace
    return here and direction in kinds and _selects(spec["podSelector"], pod.labels)


def _is_one_of(peers: list[Mapping[str, Any]] | None, party: Party, home: str) -> bool:
    """Without a list, or with an empty one, a rule is for everybody."""
    return not peers or any(_is(peer, party, home) for peer in peers)


def _is(peer: Mapping[str, Any], party: Party, home: str) -> bool:
    if block := peer.get("ipBlock"):
        outside = party.namespace is None and ip_address(party.address) in ip_network(block["cidr"])
        return outside and not any(ip_address(party.address) in ip_network(one) for one in block.get("except") or [])
    if party.namespace is None:
        return False
    if "namespaceSelector" in peer:
        where = _selects(peer["namespaceSelector"], party.namespace_labels)
    else:
        where = party.namespace == home
    return where and _selects(peer.get("podSelector") or {}, party.labels)


def _has(ports: list[Mapping[str, Any]] | None, target: Party, port: Port) -> bool:
    """Without a list, or with an empty one, a rule is for all ports."""
    return not ports or any(_is_port(one, target, port) for one in ports)


def _is_port(one: Mapping[str, Any], target: Party, port: Port) -> bool:
    if one.get("protocol", "TCP") != port.protocol:
        return False
    first = one.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return target.ports.get(first) == port.number
    return int(first) <= port.number <= int(one.get("endPort", first))


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """An empty selector selects all."""
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        _holds(one, labels) for one in selector.get("matchExpressions") or []
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    assert operator in ("In", "NotIn"), operator
    return (labels.get(key) in expression["values"]) is (operator == "In")
