"""Who reaches whom at which port where the chart's NetworkPolicies are enforced, and who does not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.objects.drain import DRAIN_PORT
from support.chart import NAME, NAMESPACE, Manifests, render
from support.network import Party, Port, let_through

Reach = dict[tuple[str, Port], frozenset[str]]
"""Who reaches what."""

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"
EVERYTHING_ON: Mapping[str, Any] = {
    "gateway": {"enabled": True},
    "monitoring": {"enabled": True},
    "networkPolicy": {"enabled": True, "modelNamespaces": ["team-a"]},
}
HTTP, OPENAI, GATEWAY_HTTP, WEBHOOK = Port(8080), Port(8080), Port(8081), Port(9443)
API, DRAIN = Port(PORT), Port(DRAIN_PORT)


def chart(**policy: object) -> Manifests:
    given = {**EVERYTHING_ON, "networkPolicy": {**EVERYTHING_ON["networkPolicy"], **policy}}
    return render(json.dumps(given))


def pod(deployment: Mapping[str, Any]) -> Party:
    """One of a Deployment."""
    template = deployment["spec"]["template"]
    containers = template["spec"].get("initContainers", []) + template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for one in containers for port in one.get("ports", ())}
    return Party(deployment["metadata"]["namespace"], template["metadata"]["labels"], ports)


def model(namespace: str) -> Party:
    """A pod with all that a LlamaModel can ask for, as the operator makes it."""
    plan = json.loads((GOLDEN / "gpu-with-everything.json").read_text())
    [deployment] = [one for one in plan["objects"] if one["kind"] == "Deployment"]
    return pod({**deployment, "metadata": {**deployment["metadata"], "namespace": namespace}})


def parties(rendered: Manifests) -> dict[str, Party]:
    return {
        "operator": pod(rendered.one("Deployment", NAME)),
        "gateway": pod(rendered.one("Deployment", f"{NAME}-gateway")),
        "model": model("team-a"),
        "model elsewhere": model("team-b"),
        "prometheus": Party("monitoring", {"app.kubernetes.io/name": "prometheus"}),
        "neighbour": Party("team-a", {"app": "chat"}),
        "stranger": Party("default", {"app": "chat"}),
        "room mate": Party(NAMESPACE, {"app": "chat"}),
        "API server": Party(address="10.0.0.10"),
        "internet": Party(address="198.51.100.7"),
    }


PODS = frozenset(
    ("operator", "gateway", "model", "model elsewhere", "prometheus", "neighbour", "stranger", "room mate")
)
ALL = PODS | {"API server", "internet"}
FREE = ALL - {"operator", "gateway"}
"""Whose own connections nothing limits."""

DEFAULT: Reach = {
    ("operator", HTTP): frozenset(("prometheus",)),
    ("operator", WEBHOOK): FREE,
    ("gateway", OPENAI): FREE,
    ("gateway", GATEWAY_HTTP): frozenset(("prometheus",)),
    ("model", API): frozenset(("operator", "gateway", "prometheus")),
    ("model", DRAIN): frozenset(),
    ("model elsewhere", API): ALL,
    ("model elsewhere", DRAIN): FREE,
    ("API server", Port(443)): ALL,
    ("API server", Port(6443)): ALL,
    ("API server", Port(22)): FREE,
    ("stranger", Port(53, "UDP")): ALL,
    ("stranger", Port(53)): ALL,
    ("stranger", HTTP): FREE,
    ("internet", Port(80)): FREE,
}
"""Where only `enabled` and `modelNamespaces` are set. What a pod asks of itself is not looked at."""


def found(
    rendered: Manifests, wanted: Mapping[tuple[str, Port], frozenset[str]]
) -> dict[tuple[str, Port], frozenset[str]]:
    """Who does, of those destinations."""
    known = parties(rendered)
    policies = [one for one in rendered.all if one["kind"] == "NetworkPolicy"]
    return {
        (name, port): frozenset(
            source for source in known if let_through(policies, source=known[source], to=known[name], port=port)
        )
        - {name}
        for name, port in wanted
    }


def test_who_reaches_whom() -> None:
    assert found(chart(), DEFAULT) == {(name, port): sources - {name} for (name, port), sources in DEFAULT.items()}


def test_without_the_switch_everybody_reaches_everybody() -> None:
    assert set(found(chart(enabled=False), DEFAULT).values()) <= {ALL - {name} for name in ALL}


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        (
            {"modelsFrom": [{"podSelector": {"matchLabels": {"app": "chat"}}}]},
            {("model", API): DEFAULT["model", API] | {"neighbour"}},
        ),
        (
            {"modelsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            {("model", API): DEFAULT["model", API] | {"API server"}},
        ),
        (
            {"gatewayFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}]},
            {("gateway", OPENAI): frozenset(("stranger",))},
        ),
        (
            {"metricsFrom": []},
            {
                ("operator", HTTP): frozenset(),
                ("gateway", GATEWAY_HTTP): frozenset(),
                ("model", API): frozenset(("operator", "gateway")),
            },
        ),
        (
            {"metricsFrom": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "chat"}}}]},
            {
                ("operator", HTTP): frozenset(("neighbour", "stranger", "room mate")),
                ("gateway", GATEWAY_HTTP): frozenset(("neighbour", "stranger", "room mate")),
                ("model", API): frozenset(("operator", "gateway", "neighbour", "stranger", "room mate")),
            },
        ),
        (
            {"apiServer": {"cidrs": ["10.0.0.10/32"], "ports": [16443]}},
            {
                ("API server", Port(443)): FREE,
                ("API server", Port(6443)): FREE,
                ("API server", Port(16443)): ALL,
                ("internet", Port(16443)): FREE,
            },
        ),
        (
            {"modelNamespaces": ["team-a", "team-b"]},
            {("model elsewhere", API): DEFAULT["model", API], ("model elsewhere", DRAIN): frozenset()},
        ),
    ],
    ids=lambda given: " ".join(given) if all(isinstance(key, str) for key in given) else "",
)
def test_each_value_lets_in_whom_it_names(policy: Mapping[str, object], changes: Reach) -> None:
    wanted = {**DEFAULT, **changes}
    assert found(chart(**policy), wanted) == {
        (name, port): sources - {name} for (name, port), sources in wanted.items()
    }


def test_what_is_scraped_is_reached_by_those_who_may_scrape() -> None:
    rendered = chart()
    known, scraped = parties(rendered), set()
    policies = [one for one in rendered.all if one["kind"] == "NetworkPolicy"]
    monitors = [one["spec"] for one in rendered.all if one["kind"] == "PodMonitor"]
    for monitor, (name, to) in itertools.product(monitors, known.items()):
        if to.labels and monitor["selector"]["matchLabels"].items() <= to.labels.items():
            for endpoint in monitor["podMetricsEndpoints"]:
                port = Port(to.ports[endpoint["port"]])
                assert let_through(policies, source=known["prometheus"], to=to, port=port), name
                scraped.add((name, port))
    assert scraped == {("operator", HTTP), ("gateway", GATEWAY_HTTP), ("model", API), ("model elsewhere", API)}


def test_services_lead_to_ports_that_somebody_reaches() -> None:
    rendered = chart()
    known, led = parties(rendered), set()
    for service in (one["spec"] for one in rendered.all if one["kind"] == "Service"):
        [name] = [key for key, to in known.items() if to.labels and service["selector"].items() <= to.labels.items()]
        led |= {(name, Port(known[name].ports[port["targetPort"]])) for port in service["ports"]}
    assert led == {("operator", HTTP), ("operator", WEBHOOK), ("gateway", OPENAI)}
    assert all(found(rendered, dict.fromkeys(led, ALL)).values())


def test_a_webhook_that_is_off_has_no_open_port() -> None:
    rendered = render(json.dumps({**EVERYTHING_ON, "webhook": {"mode": "off"}}))
    assert found(rendered, {("operator", WEBHOOK): ALL}) == {("operator", WEBHOOK): frozenset()}


def test_other_ports_are_opened_where_the_chart_is_told_of_them() -> None:
    rendered = render(json.dumps({**EVERYTHING_ON, "httpPort": 9000, "webhook": {"port": 9444}}))
    assert found(rendered, {("operator", Port(9000)): ALL, ("operator", Port(9444)): ALL, ("operator", HTTP): ALL}) == {
        ("operator", Port(9000)): frozenset(("prometheus",)),
        ("operator", Port(9444)): FREE - {"operator"},
        ("operator", HTTP): frozenset(),
    }


# --- the rules of NetworkPolicies themselves


def a_policy(rule: Mapping[str, Any] | None, **spec: object) -> dict[str, Any]:
    ingress = [] if rule is None else [rule]
    return {"metadata": {"namespace": "a"}, "spec": {"podSelector": {}, "ingress": ingress, **spec}}


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        (None, False),
        ({}, True),
        ({"from": [], "ports": []}, True),
        ({"from": [{"podSelector": {}}]}, False),
        ({"from": [{"namespaceSelector": {}}]}, True),
        ({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}]}, False),
        ({"from": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "x"}}}]}, True),
        ({"from": [{"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["b"]}]}}]}, False),
        ({"from": [{"namespaceSelector": {}, "podSelector": {"matchExpressions": [
            {"key": "app", "operator": "Exists"}]}}]}, True),
        ({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, False),
        ({"ports": [{"port": "http"}]}, True),
        ({"ports": [{"port": "https"}]}, False),
        ({"ports": [{"port": 80, "endPort": 90}]}, True),
        ({"ports": [{"port": 80, "protocol": "UDP"}]}, False),
        ({"ports": [{"protocol": "TCP"}]}, True),
        ({"from": [{"namespaceSelector": {}}], "ports": [{"port": 81}]}, False),
    ],
)  # fmt: skip
def test_the_text_of_the_api_is_followed(rule: Mapping[str, Any] | None, reached: bool) -> None:
    to, source = Party("a", ports={"http": 80}), Party("b", {"app": "y"})
    assert let_through([a_policy(rule)], source=source, to=to, port=Port(80)) is reached


def test_addresses_are_let_in_but_for_those_that_are_left_out() -> None:
    rule = {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}

    def reached(address: str) -> bool:
        return let_through([a_policy(rule)], source=Party(address=address), to=Party("a"), port=Port(80))

    assert [reached(address) for address in ("10.0.0.1", "10.1.0.1", "192.0.2.1")] == [True, False, False]


def test_a_policy_is_for_the_pods_that_it_selects_in_its_namespace_and_directions_add_up() -> None:
    selecting = a_policy(None, podSelector={"matchLabels": {"app": "x"}})
    source = Party("b")
    assert not let_through([selecting], source=source, to=Party("a", {"app": "x"}), port=Port(80))
    assert let_through([selecting], source=source, to=Party("a", {"app": "y"}), port=Port(80))
    assert let_through([selecting], source=source, to=Party("b", {"app": "x"}), port=Port(80))
    locked_in = {"metadata": {"namespace": "b"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    assert not let_through([a_policy({}), locked_in], source=source, to=Party("a"), port=Port(80))
    assert let_through([locked_in], source=Party("a"), to=Party("b"), port=Port(80))
    assert let_through([a_policy(None), a_policy({})], source=source, to=Party("a"), port=Port(80))
