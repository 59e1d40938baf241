"""The chart as a real API server takes it: every object of every switch, by a server-side dry run with strict fields,
in namespaces that Pod Security keeps `restricted`."""

from __future__ import annotations

import pytest
import yaml

from support.chart import NAMESPACE, template
from support.chart_switches import SWITCHES

from .harness.cluster import Cluster
from .harness.kube import Kube, RefusedByServerError
from .harness.models import a_deployment

OF_OTHERS = {"Certificate", "HTTPRoute", "Issuer", "PodMonitor", "PrometheusRule"}
"""Kinds of cert-manager, the Gateway API and the Prometheus Operator, which this API server does not know."""

APPLYING = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")


@pytest.fixture(scope="module")
def namespaces(kube: Kube) -> None:
    """Those that the values name: a dry run goes into namespaces that there are. The server warns of Deployments whose
    pods would not be let in."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    for name in (NAMESPACE, "team-a", "team-b"):
        try:
            kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        except RefusedByServerError as refused:
            if refused.status != 409:
                raise


@pytest.mark.parametrize("name", ["defaults", *SWITCHES])
def test_every_object_is_taken(name: str, cluster: Cluster, namespaces: None) -> None:
    done = template(SWITCHES.get(name, "{}"))
    assert done.returncode == 0, done.stderr
    documents = [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc]
    known = [doc for doc in documents if doc["kind"] not in OF_OTHERS]
    answer = cluster.kubectl(*APPLYING, stdin=yaml.dump_all(known, Dumper=yaml.CSafeDumper), check=False)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == len(known)
    assert "Warning" not in answer.stderr


def test_a_pod_that_is_not_restricted_would_be_told_of(cluster: Cluster, namespaces: None) -> None:
    other = a_deployment("other").in_(NAMESPACE).body
    answer = cluster.kubectl(*APPLYING, stdin=yaml.safe_dump(other))
    assert "would violate PodSecurity" in answer.stderr
