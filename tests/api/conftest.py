"""The tests' own API server, a namespace for each test, and operators as processes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .harness.audit import AuditLog, Mark
from .harness.bench import Bench
from .harness.cluster import REPOSITORY, Cluster, running_cluster
from .harness.kube import Kube
from .harness.operators import Operators
from .harness.others_crds import OTHERS
from .harness.process import OperatorProcess
from .harness.waiting import eventually

CRD_FILE = REPOSITORY / "crds" / "llamamodels.yaml"
CRD_NAME = "llamamodels.llamamodel.dev"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-testdata",
        action="store_true",
        help="write the objects in gitops/ that tests of GitOps tools look at anew; review them with git diff",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Shows what the operators of a failed test wrote."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            shown = [value] if isinstance(value, OperatorProcess) else value if isinstance(value, Operators) else []
            report.sections.extend((f"log of {operator.log_file.stem}", operator.log[-6_000:]) for operator in shown)
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server without controllers and kubelet, ours alone."""
    with running_cluster(name=f"t-{os.getpid()}", scratch=tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def bare_kube(cluster: Cluster) -> Iterator[Kube]:
    """A client of an API server that may not know LlamaModels yet."""
    kube = Kube.connect(cluster)
    with kube.http:
        yield kube


@pytest.fixture(scope="session")
def install_crd(bare_kube: Kube) -> Callable[[], None]:
    """Installs the CustomResourceDefinition as it is in the repository, and waits until it is Established."""

    def install() -> None:
        bare_kube.apply(yaml.safe_load(CRD_FILE.read_text()))
        eventually(lambda: _established(bare_kube), what="the CustomResourceDefinition is established")

    return install


@pytest.fixture(scope="session")
def kube(bare_kube: Kube, install_crd: Callable[[], None]) -> Kube:
    """A client of an API server that knows LlamaModels."""
    install_crd()
    return bare_kube


@pytest.fixture(scope="session")
def kinds_of_others(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The API server knows the kinds of other projects that the chart makes objects of."""
    folder = tmp_path_factory.mktemp("go")
    files = [part for others in OTHERS for file in others.fetch(folder) for part in ("-f", str(file))]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.kubectl("wait", "--for=condition=Established", *files, "--timeout=60s")


@pytest.fixture(scope="session")
def audit(cluster: Cluster) -> AuditLog:
    """Every write that the API server has seen."""
    return AuditLog(cluster.audit_log)


@pytest.fixture
def mark(audit: AuditLog) -> Mark:
    """The audit log as of the start of the test."""
    return audit.mark()


_numbers = itertools.count(1)


@pytest.fixture
def bench(request: pytest.FixtureRequest, cluster: Cluster, kube: Kube) -> Iterator[Bench]:
    """A namespace of the test's own, with nothing in it."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.removeprefix("test_").lower())[:40].strip("-")
    namespace = f"{words}-{next(_numbers)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    made = Bench(kube=kube, cluster=cluster, namespace=namespace)
    yield made
    made.play_namespace_controller()


@pytest.fixture(scope="module")
def module_operators(cluster: Cluster, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    """Makes operators that live as long as the module's tests."""
    with Operators(cluster=cluster, folder=tmp_path_factory.mktemp("operators")) as made:
        yield made


@pytest.fixture
def operators(cluster: Cluster, tmp_path: Path) -> Iterator[Operators]:
    """Makes operators that live as long as the test."""
    with Operators(cluster=cluster, folder=tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def operator(module_operators: Operators, request: pytest.FixtureRequest) -> OperatorProcess:
    """One leading operator for all tests of a module. It compares so rarely that what it does it does by its watches,
    unless the module's `OPERATOR` says otherwise."""
    settings: dict[str, Any] = getattr(request.module, "OPERATOR", {"resync_interval_sec": 600})
    made = module_operators.make("operator", **settings)
    made.start_and_lead()
    return made


def _established(kube: Kube) -> bool:
    found = kube.get("CustomResourceDefinition", "", CRD_NAME) or {}
    conditions = (found.get("status") or {}).get("conditions") or []
    served = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
    if not served or kube.http.get("/apis/llamamodel.dev/v1alpha1/llamamodels").status_code != 200:
        return False
    return "contextSize" in kube.http.get("/openapi/v3/apis/llamamodel.dev/v1alpha1").text  # what kubectl explains from
