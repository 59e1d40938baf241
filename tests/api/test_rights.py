"""Operator and gateway with exactly the rights that the chart gives them: none is missing, and none is never used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.chart import NAME, template

from .harness.accounts import kubeconfig_of
from .harness.bench import Bench, condition
from .harness.cluster import Cluster
from .harness.gateway import a_gateway
from .harness.kube import Kube, RefusedByServerError
from .harness.models import a_deployment, a_model, a_service
from .harness.operators import Operators
from .harness.rights import granted, used
from .harness.waiting import NeverHappenedError, eventually

HOME = "llamamodel-rights"
"""The release's namespace: of its service accounts the audit log has the reads as well."""
GATEWAY = f"{NAME}-gateway"
LONG_AGO = "2026-01-01T12:00:00Z"
RIGHTS = {
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingWebhookConfiguration",
}
NOT_USED_HERE = {
    "get jobs.batch": "only where a Job that is to be made is there, and the cache does not know of it yet",
}


def install(cluster: Cluster, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Applies accounts and rights of the chart, without its pods; what was applied."""
    nobodys = {"namespaceSelector": {"matchLabels": {"reviewed": "by-nobody"}}}
    given = {"crds": {"enabled": False}, "gateway": {"enabled": True}, "webhook": nobodys, **values}
    done = template(json.dumps(given), "--namespace", HOME)
    assert done.returncode == 0, done.stderr
    objects = [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc and doc["kind"] in RIGHTS]
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
    return objects


@pytest.fixture
def home(kube: Kube) -> None:
    """The release's namespace."""
    try:
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    except RefusedByServerError as refused:
        if refused.status != 409:
            raise


@pytest.fixture(params=["cluster", "namespace"])
def chart(
    request: pytest.FixtureRequest, cluster: Cluster, kube: Kube, bench: Bench, home: None
) -> Iterator[list[dict[str, Any]]]:
    """The rights for the whole cluster, or for the test's namespace alone."""
    for kind, name in (("Lease", NAME), ("Secret", f"{NAME}-webhook")):
        kube.delete(kind, HOME, name)
    objects = install(cluster, {"watchNamespaces": [bench.namespace]} if request.param == "namespace" else {})
    yield objects
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(objects))


def work(bench: Bench) -> None:
    """All that the operator does for models: made, changed, held back, ended, taken away."""
    bench.play_bound_claim()
    text = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": 'root ::= "a"'}}
    bench.kube.create({**text, "metadata": {"name": "texts", "namespace": bench.namespace}})
    bench.create(a_model().with_(replicas=2, grammar={"configMapKeyRef": {"name": "texts", "key": "a"}}))
    deployment = bench.wait_for("Deployment", "gemma")
    bench.wait_for("PodDisruptionBudget", "gemma")

    marks = {key: deployment["metadata"][key] for key in ("labels", "ownerReferences")}
    for manifest in (a_deployment("gone"), a_service("gone")):
        body = manifest.in_(bench.namespace).body
        body["metadata"] |= marks
        bench.kube.create(body)

    bench.edit_spec("gemma", replicas=1, grammar={"inline": 'root ::= "b"', "configMapKeyRef": None})
    eventually(lambda: bench.find("PodDisruptionBudget", "gemma") is None, what="the budget is gone")
    eventually(lambda: bench.find("Deployment", "gone") is None, what="the Deployment that nobody wants is gone")
    eventually(lambda: bench.find("Service", "gone") is None, what="the Service that nobody wants is gone")
    with_text = len(bench.kube.list("ConfigMap", bench.namespace))
    bench.edit_spec("gemma", grammar=None)
    eventually(lambda: len(bench.kube.list("ConfigMap", bench.namespace)) < with_text, what="its ConfigMap is gone")

    bench.edit_spec("gemma", extraArgs=["--path", "/etc"], replicas=2)
    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"] == 2, what="it is scaled all the same")
    bench.edit_spec("gemma", extraArgs=None, replicas=1)
    bench.wait_until_settled("gemma")

    bench.play_ready_pod("gemma-0", template=bench.get("Deployment", "gemma")["spec"]["template"])
    ended = {"exitCode": 1, "reason": "Error", "startedAt": LONG_AGO, "finishedAt": LONG_AGO}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    _play_status(bench, "gemma-0", "Running", state=waiting, lastState={"terminated": ended}, restartCount=5)
    eventually(lambda: condition(bench.get("LlamaModel", "gemma")).get("reason") == "CrashLoop", what="it has failed")
    starting = {"waiting": {"reason": "ContainerCreating"}}
    _play_status(bench, "gemma-0", "Pending", state=starting, lastState={}, restartCount=0)
    bench.edit("LlamaModel", "gemma", {"metadata": {"annotations": {"llamamodel.dev/inspect": "again"}}})


def _play_status(bench: Bench, pod: str, phase: str, **container: Any) -> None:
    """The kubelet: where the pod's container is."""
    statuses = [{"name": "llama-server", "image": "x", "imageID": "x", "ready": False, "started": False, **container}]
    conditions = [
        {"type": kind, "status": status, "lastTransitionTime": LONG_AGO}
        for kind, status in (("PodScheduled", "True"), ("Ready", "False"))
    ]
    status = {"phase": phase, "startTime": LONG_AGO, "conditions": conditions, "containerStatuses": statuses}
    bench.kube.merge("Pod", bench.namespace, pod, {"status": status}, subresource="status")


def test_the_charts_rights_are_all_that_is_needed_and_all_are_used(
    chart: list[dict[str, Any]], cluster: Cluster, kube: Kube, bench: Bench, operators: Operators, tmp_path: Path
) -> None:
    in_one = not any(doc["metadata"]["name"] == NAME and doc["kind"] == "ClusterRole" for doc in chart)
    watched = {"watch_namespaces": [bench.namespace]} if in_one else {}
    operator = operators.make(
        "operator",
        kubeconfig=kubeconfig_of(NAME, namespace=HOME, kube=kube, cluster=cluster),
        lease_name=NAME,
        lease_namespace=HOME,
        webhook="off" if in_one else "self-signed",
        webhook_name=f"{NAME}-webhook",
        webhook_port=0,
        webhook_certificate_life_sec=10,  # so that it is renewed
        resync_interval_sec=5,
        operator_image="example.com/operator:1",
        inspection_timeout_sec=2,
        **watched,
    )
    start, users = (
        cluster.audit_log.stat().st_size,
        {who: f"system:serviceaccount:{HOME}:{who}" for who in (NAME, GATEWAY)},
    )

    def unused() -> set[str]:
        """Rights that nobody has asked for yet."""
        return {
            str(right)
            for account, user in users.items()
            for asked in [used(cluster.audit_log, user=user, since=start)[0]]
            for right in granted(chart, account=account)
            if not any(right.covers(one) for one in asked)
        }

    def refused() -> list[str]:
        """Requests that were forbidden."""
        return [one for user in users.values() for one in used(cluster.audit_log, user=user, since=start)[1]]

    operator.start_and_lead()
    seen = dataclasses.replace(cluster, kubeconfig=kubeconfig_of(GATEWAY, namespace=HOME, kube=kube, cluster=cluster))
    flags = [f'--watch-namespaces=["{bench.namespace}"]'] if in_one else []
    with a_gateway(seen, tmp_path / "gateway.log", *flags):
        work(bench)
        try:
            eventually(lambda: unused() <= set(NOT_USED_HERE), what="every right is used")
        except NeverHappenedError:
            assert sorted(unused() - set(NOT_USED_HERE)) == []
    operator.stop()
    assert refused() == []
    seen.kubectl("get", "secrets", "--all-namespaces", check=False)
    [told] = {one.partition(":")[0] for one in refused()}
    assert told == "list secrets in the cluster"
