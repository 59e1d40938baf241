"""The chart as a real API server takes it: each object of each switch, by a server-side dry run with strict fields."""

from __future__ import annotations

import pytest
import yaml

from support.chart import NAMESPACE, template
from support.chart_switches import SWITCHES

from .harness.cluster import Cluster
from .harness.kube import Kube, RefusedByServerError

OF_OTHERS = {"Certificate", "HTTPRoute", "Issuer"}
"""Kinds of cert-manager and the Gateway API, which this API server does not know."""


@pytest.fixture(scope="module")
def namespaces(kube: Kube) -> None:
    """Those that the values name: a dry run goes into namespaces that there are."""
    for name in (NAMESPACE, "team-a", "team-b"):
        try:
            kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except RefusedByServerError as refused:
            if refused.status != 409:
                raise


@pytest.mark.parametrize("name", ["defaults", *SWITCHES])
def test_every_object_is_taken(name: str, cluster: Cluster, namespaces: None) -> None:
    done = template(SWITCHES.get(name, "{}"))
    assert done.returncode == 0, done.stderr
    documents = [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc]
    known = [doc for doc in documents if doc["kind"] not in OF_OTHERS]
    applying = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    answer = cluster.kubectl(*applying, stdin=yaml.dump_all(known, Dumper=yaml.CSafeDumper), check=False)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == len(known)
    assert "Warning" not in answer.stderr
