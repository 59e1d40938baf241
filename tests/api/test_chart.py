"""The chart as a real API server takes it: every object of every switch, by a server-side dry run with strict fields,
in namespaces that Pod Security keeps `restricted`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from support.chart import NAMESPACE, template
from support.chart_switches import SWITCHES

from .harness.cluster import Cluster
from .harness.kube import Kube
from .harness.models import a_deployment

OF_OTHERS = {
    "Certificate": "webhook-cert-manager",
    "HTTPRoute": "gateway-http-route",
    "Issuer": "webhook-cert-manager",
    "PodMonitor": "monitoring",
    "PrometheusRule": "monitoring",
}
"""Kinds of cert-manager, the Gateway API and the Prometheus Operator, each with a switch that makes one."""

APPLYING = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")


@pytest.fixture(scope="module")
def namespaces(kube: Kube) -> None:
    """Those that the values name: a dry run goes into namespaces that there are. The server warns of Deployments whose
    pods would not be let in."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    for name in (NAMESPACE, "team-a", "team-b"):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


@pytest.mark.parametrize("name", ["defaults", *SWITCHES])
def test_every_object_is_taken(name: str, cluster: Cluster, namespaces: None, kinds_of_others: None) -> None:
    documents = rendered(SWITCHES.get(name, "{}"))
    answer = cluster.kubectl(*APPLYING, stdin=yaml.dump_all(documents, Dumper=yaml.CSafeDumper), check=False)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == len(documents)
    assert "Warning" not in answer.stderr


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_a_field_that_others_do_not_have_is_refused(
    kind: str, cluster: Cluster, namespaces: None, kinds_of_others: None
) -> None:
    body = next(doc for doc in rendered(SWITCHES[OF_OTHERS[kind]]) if doc["kind"] == kind)
    body["spec"]["nobodysField"] = True
    answer = cluster.kubectl(*APPLYING, stdin=yaml.safe_dump(body), check=False)
    assert answer.returncode != 0
    assert "nobodysField" in answer.stderr


def test_a_pod_that_is_not_restricted_would_be_told_of(cluster: Cluster, namespaces: None) -> None:
    other = a_deployment("other").in_(NAMESPACE).body
    answer = cluster.kubectl(*APPLYING, stdin=yaml.safe_dump(other))
    assert "would violate PodSecurity" in answer.stderr


def rendered(values: str) -> list[dict[str, Any]]:
    """What helm makes of values."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc]
