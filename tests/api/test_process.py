"""The operator as a process: how it starts, what it says of itself, what it is limited to, how it ends."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator

import pytest

from .harness.audit import AuditLog
from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.kube import Kube
from .harness.models import a_model
from .harness.operators import Operators
from .harness.process import Restarter, run_briefly
from .harness.waiting import eventually

CRD = "llamamodels.llamamodel.dev"
NOT_INSTALLED = "the CustomResourceDefinition of LlamaModel is not installed: install the chart's CRD"


@pytest.fixture
def without_crd(kube: Kube, install_crd: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """A cluster that does not know LlamaModels; what is yielded teaches it."""
    kube.delete("CustomResourceDefinition", "", CRD)
    eventually(lambda: kube.get("CustomResourceDefinition", "", CRD) is None, what="the definition is gone", within=60)
    yield install_crd
    install_crd()


def test_without_the_definition_it_says_so_and_works_once_it_is_there(
    without_crd: Callable[[], None], operators: Operators, bench: Bench
) -> None:
    operator = operators.make("operator")
    operator.start()
    eventually(lambda: operator.messages(NOT_INSTALLED), what="it says what is missing")
    assert operator.http("/healthz")[0] == 200
    status, text = operator.http("/readyz")
    assert status == 503
    assert "the first reading of the cluster is not complete" in text

    without_crd()

    eventually(lambda: operator.leads, what="it works")
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")


def test_it_stops_at_once_also_while_it_waits_for_the_definition(
    without_crd: Callable[[], None], operators: Operators
) -> None:
    operator = operators.make("operator")
    operator.start()
    eventually(lambda: operator.messages(NOT_INSTALLED), what="it says what is missing")

    operator.signal(signal.SIGTERM)

    assert operator.wait(within=8) == 0
    assert operator.messages("released the lease")


def test_it_stops_at_once_also_while_it_waits_for_the_definition_without_a_lease(
    without_crd: Callable[[], None], operators: Operators
) -> None:
    operator = operators.make("operator", leader_election=False)
    operator.start()
    eventually(lambda: operator.messages(NOT_INSTALLED), what="it says what is missing")

    operator.signal(signal.SIGTERM)

    eventually(lambda: operator.ended, what="it ends", within=8)


def test_a_definition_that_goes_and_comes_back_is_outlived(
    kube: Kube, operators: Operators, install_crd: Callable[[], None], bench: Bench
) -> None:
    operator = operators.make("operator", resync_interval_sec=600)
    operator.start_and_lead()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    with Restarter(operator):
        kube.delete("CustomResourceDefinition", "", CRD)
        gone = "the definition is gone"
        eventually(lambda: kube.get("CustomResourceDefinition", "", CRD) is None, what=gone, within=60)
        eventually(lambda: re.search("not found|not installed", operator.log_file.read_text()), what="it notices")
        install_crd()
        bench.create(a_model("later"))
        bench.wait_for_reason("later", "ClaimNotFound", within=40)


def test_metrics_tell_what_it_does(operators: Operators, bench: Bench) -> None:
    operator = operators.make("operator", resync_interval_sec=600)
    operator.start_and_lead()
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.create(a_model("homeless").reading("m.gguf", claim="missing"))
    bench.wait_for_reason("gemma", "Starting")
    bench.wait_for_reason("homeless", "ClaimNotFound")

    eventually(lambda: operator.metric("models", phase="Pending"), until=lambda number: number == 2)
    assert operator.metric("api_writes_total", kind="Deployment", verb="apply", status="200") == 2
    assert operator.metric("api_writes_total", kind="LlamaModel", verb="apply-status", status="200") == 2
    # a pass is counted when it has ended, which is a moment after its status was written
    eventually(lambda: operator.metric("reconciles_total", result="ok"), until=lambda number: number >= 2)
    assert operator.metric("reconcile_seconds_count") >= 2
    assert operator.metric("queue_depth") == 0
    assert operator.metric("lease_acquired_total") == 1
    eventually(lambda: operator.metric("watch_events_total", resource="llamamodels"), until=lambda number: number >= 2)
    assert "process_resident_memory_bytes" in operator.http("/metrics")[1]
    assert operator.http("/healthz") == (200, "watches: ok\nworkers: ok\n")
    assert operator.http("/readyz")[0] == 200
    assert operator.http("/nothing")[0] == 404


def test_log_lines_carry_the_model_and_are_json_where_nobody_looks(operators: Operators, bench: Bench) -> None:
    operator = operators.make("operator", log_format="auto")
    operator.start_and_lead()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")

    (line,) = eventually(
        lambda: [line for line in operator.log_lines if line.get("model") == f"{bench.namespace}/gemma"]
    )
    assert line["message"].startswith("Pending: PersistentVolumeClaim models")
    assert line["level"] == "info"
    assert all({"time", "level", "logger", "message"} <= set(line) for line in operator.log_lines)


def test_it_is_limited_to_the_namespaces_that_it_is_told(
    operators: Operators, bench: Bench, kube: Kube, cluster: Cluster, audit: AuditLog
) -> None:
    later = Bench(kube=kube, cluster=cluster, namespace=f"{bench.namespace}-later")
    outside = Bench(kube=kube, cluster=cluster, namespace=f"{bench.namespace}-outside")
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": outside.namespace}})
    mark = audit.mark()
    operator = operators.make("operator", watch_namespaces=[bench.namespace, later.namespace])
    operator.start_and_lead()

    outside.create(a_model("gemma"))
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "ClaimNotFound")
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": later.namespace}})
    later.create(a_model("gemma"))
    later.wait_for_reason("gemma", "ClaimNotFound")

    assert {write.namespace for write in mark.writes()} == {bench.namespace, later.namespace}
    for place in (later, outside):
        place.play_namespace_controller()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "--nonsense"),
        (["--kubeconfig=/nowhere"], "/nowhere"),
        (["--context=nowhere"], "nowhere"),
    ],
)
def test_a_bad_setting_ends_it_with_a_sentence(arguments: list[str], words: str, cluster: Cluster) -> None:
    _assert_that_it_refuses(arguments, words, cluster)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers=0"], "--workers: Input should be greater than or equal to 1 (found '0')"),
        (["--workers=many"], "--workers"),
        (["--log-format=xml"], "--log-format"),
        (["--resync-interval-sec=1"], "--resync-interval-sec"),
        (["--http-port=99999"], "--http-port"),
    ],
)
def test_a_setting_out_of_bounds_ends_it_with_a_sentence(arguments: list[str], words: str, cluster: Cluster) -> None:
    _assert_that_it_refuses(arguments, words, cluster)


def _assert_that_it_refuses(arguments: list[str], words: str, cluster: Cluster) -> None:
    kubeconfig = [] if "--kubeconfig=/nowhere" in arguments else [f"--kubeconfig={cluster.kubeconfig}"]
    finished = run_briefly("--http-host=127.0.0.1", "--http-port=0", *kubeconfig, *arguments)

    assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.returncode == 2


def test_a_port_that_is_taken_is_told_in_a_sentence(operators: Operators, cluster: Cluster) -> None:
    first = operators.make("first")
    first.start_and_lead()
    port = next(message.rsplit(" ", 1)[-1] for message in first.messages("serving /metrics"))

    finished = run_briefly(f"--kubeconfig={cluster.kubeconfig}", "--http-host=127.0.0.1", f"--http-port={port}")

    assert finished.returncode != 0
    assert port in finished.stderr
    assert "Traceback" not in finished.stderr


def test_an_operator_that_reads_the_cluster_without_rights_says_what_it_lacks(
    operators: Operators, cluster: Cluster, kube: Kube
) -> None:
    nobody = cluster.kubeconfig_for("nobody", token="not-a-token")
    operator = operators.make("operator", kubeconfig=nobody, leader_election=False)
    operator.start()

    (told, *_) = eventually(lambda: operator.messages("cannot be read"), what="it says why")
    assert "Unauthorized" in told
    assert operator.http("/healthz")[0] == 200


def test_it_says_its_version() -> None:
    finished = run_briefly("--version")

    assert finished.stdout.startswith("llamamodel-operator ")
    assert finished.returncode == 0


def test_a_model_that_comes_while_it_stops_is_not_lost(operators: Operators, bench: Bench) -> None:
    operator = operators.make("operator")
    operator.start_and_lead()
    bench.play_bound_claim()
    operator.signal(signal.SIGTERM)
    bench.create(a_model("gemma"))
    assert operator.wait() == 0

    operator.start_and_lead()

    bench.wait_for_reason("gemma", "Starting")
