"""The API server stops answering, connections break, a watch falls silent: the operator finds its way back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.models import a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess, Restarter
from .harness.proxy import Proxy, running_proxy
from .harness.waiting import eventually

WATCHED = {
    *("configmaps", "deployments", "jobs", "llamamodels", "persistentvolumeclaims", "poddisruptionbudgets", "pods"),
    *("deviceclasses", "nodes", "resourceslices", "services"),
}


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """Stands between an operator and the API server."""
    with running_proxy(cluster) as running:
        yield running


@pytest.fixture
def behind(proxy: Proxy, operators: Operators, cluster: Cluster) -> OperatorProcess:
    """An operator that reaches the API server by way of the proxy, and watches everything."""
    made = operators.make("operator", kubeconfig=cluster.kubeconfig_by_way_of(proxy.url), resync_interval_sec=5)
    made.start_and_lead()
    eventually(lambda: proxy.watched, until=lambda found: found == WATCHED, what="all watches are open")
    return made


def test_an_api_server_that_does_not_answer_for_a_while_is_outlived(
    bench: Bench, operators: Operators, cluster: Cluster
) -> None:
    operator = operators.make("operator", resync_interval_sec=600)
    operator.start_and_lead()
    bench.play_bound_claim()
    bench.create(a_model("before"))
    bench.wait_for_reason("before", "Starting")

    with Restarter(operator) as restarter:
        os.kill(cluster.apiserver_pid, signal.SIGSTOP)
        try:
            time.sleep(15)  # longer than a lease is good for; nothing can be asked meanwhile
        finally:
            os.kill(cluster.apiserver_pid, signal.SIGCONT)
        eventually(lambda: bench.find("LlamaModel", "before") is not None, what="the API server answers again")
        bench.create(a_model("after"))
        bench.delete("Service", "before")

        bench.wait_for_reason("after", "Starting", within=60)
        eventually(lambda: bench.find("Service", "before"), what="the Service is back", within=60)

    assert restarter.exit_codes in ([], [1]), "at most once, for the lease that it could not renew"
    assert "Traceback" not in operator.log_file.read_text()


def test_broken_connections_are_made_anew(bench: Bench, behind: OperatorProcess, proxy: Proxy) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")

    proxy.cut_all()
    bench.delete("Service", "gemma")
    bench.edit_spec("gemma", replicas=2)

    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"], until=lambda n: n == 2)
    eventually(lambda: bench.find("Service", "gemma"), what="the Service is back")
    eventually(lambda: proxy.watched, until=lambda found: found == WATCHED, what="all watches are open again")
    assert not behind.ended


def test_a_watch_that_falls_silent_is_noticed_made_up_for_and_told(
    bench: Bench, behind: OperatorProcess, proxy: Proxy
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    assert behind.http("/healthz")[0] == 200

    proxy.deafen("deployments")
    bench.edit("Deployment", "gemma", {"spec": {"replicas": 7}})

    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"], until=lambda n: n == 1, within=60)
    _, text = eventually(lambda: behind.http("/healthz"), until=lambda answer: answer[0] == 503, within=10)
    assert "no news from the watches of deployments" in text
    assert behind.messages("the watch of deployments is deaf")
    assert behind.metric("watch_missed_events_total", resource="deployments") >= 1

    proxy.heal()
    bench.edit("Deployment", "gemma", {"metadata": {"labels": {"note": "x"}}})
    eventually(lambda: behind.http("/healthz"), until=lambda answer: answer[0] == 200, within=30)
