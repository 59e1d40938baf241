"""The operator in a pod, installed by its chart, on a cluster with a real kubelet and a real llama-server.

The cluster is one of hack/cluster, of which everything is known and nothing is skipped; or, by E2E_KUBECONFIG, any
other (`e2e.foreign`): tests that need more of it than its API are skipped and say what they need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e import foreign
from support.audit import AuditLog
from support.kube import Kube, KubectlError, eventually

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "llamamodel-operator"
OPERATOR_NAMESPACE = "llamamodel-system"
GATEWAY = "llamamodel-operator-gateway"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:llamamodel-operator"
RESYNC_SEC = 10
_AUDIT = "the audit log of the API server"
PYTHON = "/opt/llamamodel/bin/python"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The JSON in it; fails where the request did."""
        assert self.status == 200, f"{self.status}: {self.text}"
        return json.loads(self.text)


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks models of the namespace through their Services, as clients in the cluster do."""

    run: Callable[..., str]
    namespace: str

    def get(self, model: str, path: str) -> Answer:
        return self._ask(model, path)[0]

    def post(self, model: str, path: str, /, **body: Any) -> Answer:
        return self.post_each(model, path, [body])[0]

    def post_each(self, model: str, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """One after the other, in one call: each call costs the start of a process."""
        return self._ask(model, path, *map(json.dumps, bodies))

    def _ask(self, model: str, path: str, *bodies: str) -> list[Answer]:
        said = json.loads(self.run(_ASK, f"http://{model}.{self.namespace}.svc:8080{path}", *bodies))
        return [Answer(status=status, text=text) for status, text in said]


_ASK = """
import json, sys, time, urllib.error, urllib.request as u

def ask(body):
    data = body and body.encode()
    request = u.Request(sys.argv[1], data=data, headers={"Content-Type": "application/json"})
    for _ in range(50):
        try:
            return u.urlopen(request, timeout=300)
        except urllib.error.HTTPError as error:
            return error
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
        time.sleep(0.2)  # the node has not yet heard of the pod that has just become ready
    sys.exit("connection refused for 10 s")

answers = [(answer.status, answer.read().decode()) for answer in map(ask, sys.argv[2:] or [None])]
print(json.dumps(answers))
"""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What is known of a cluster of hack/cluster beside its API."""

    name: str
    audit_log: Path
    models_dir: Path


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A cluster with the operator in it."""

    kube: Kube
    operator_image: str
    operator_target: tuple[str, ...]
    """The arguments by which `hack/deploy operator` finds it; likewise `storage`."""
    storage_target: tuple[str, ...]
    own: Inside | None
    """None for a cluster of which only the API is known."""

    def inside(self, need: str) -> Inside:
        """What is known of the cluster; skips the test, which has that need, where nothing is."""
        if self.own is None:
            pytest.skip(f"needs {need}, which a cluster of {foreign.KUBECONFIG} does not give")
        return self.own

    @property
    def name(self) -> str:
        """Its name for hack/cluster."""
        return self.inside("a cluster of hack/cluster").name

    @property
    def models_dir(self) -> Path:
        """What the claim `models` holds, as a folder here."""
        return self.inside("the folder behind the claim `models`").models_dir

    def deploy_operator(self, *values: str) -> None:
        """Installs or upgrades the chart with the given values (KEY=VALUE)."""
        settings = [f"resyncIntervalSec={RESYNC_SEC}", *values]
        tool("hack/deploy", "operator", *self.operator_target, *(p for v in settings for p in ("--set", v)))

    def storage(self, namespace: str) -> None:
        """The claim `models`, with Gemma 3 270M on it."""
        tool("hack/deploy", "storage", *self.storage_target, "--namespace", namespace)

    @property
    def system(self) -> Kube:
        """The operator's own namespace."""
        return self.kube.within(OPERATOR_NAMESPACE)

    def audit(self) -> AuditLog:
        """Writes from now on."""
        return AuditLog(self.inside(_AUDIT).audit_log)

    def scale_operator(self, replicas: int) -> None:
        """Waits until exactly so many pods run, and none that is on its way out."""
        self.system("scale", "deployment/llamamodel-operator", f"--replicas={replicas}")

        def settled() -> bool:
            pods = self.operator_pods()
            return len(pods) == replicas and all(_is_ready(pod) for pod in pods)

        eventually(settled, within=90)

    def operator_pods(self) -> list[dict[str, Any]]:
        """All of them, also those that are being deleted."""
        return self.system.select("pods", "app.kubernetes.io/name=llamamodel-operator")

    def leader(self) -> str:
        """Name of the pod that holds the lease; empty where nobody does."""
        lease = self.system.get("lease", "llamamodel-operator")
        holder = (lease or {}).get("spec", {}).get("holderIdentity") or ""
        return holder.rpartition("_")[0]


def serve(kube: Kube, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Applies the LlamaModel; returns it once exactly one pod is left, which serves this spec."""
    kube.apply(manifest)
    return served(kube, manifest["metadata"]["name"])


def served(kube: Kube, name: str) -> dict[str, Any]:
    """The LlamaModel, once exactly one pod is left, which serves its present spec."""
    kube("wait", "--for=condition=Ready", f"lm/{name}", "--timeout=240s", timeout=250)
    model = kube.must_get("lm", name)
    eventually(lambda: len(kube.select("pods", model["status"]["selector"])) == 1, within=60)
    return model


def pod_of(kube: Kube, name: str) -> dict[str, Any]:
    """The one pod of a LlamaModel."""
    (pod,) = kube.select("pods", f"llamamodel.dev/model={name}")
    return pod


def applied(kube: Kube, manifest: Mapping[str, Any]) -> str:
    """What `kubectl apply` prints, warnings included; raises KubectlError where it is refused."""
    done = subprocess.run(
        [kube.bin_dir / "kubectl", "--kubeconfig", kube.kubeconfig, "--namespace", kube.namespace, "apply", "-f", "-"],
        input=json.dumps(manifest),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise KubectlError(done.stdout)
    return done.stdout


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On a cluster of ours a test that is skipped has failed."""
    report = yield
    if report.skipped and not foreign.is_meant():
        report.outcome = "failed"
        report.longrepr = f"skipped, and only with {foreign.KUBECONFIG} may tests be: {call.excinfo}"
    return report


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    """A cluster of its own, ended afterwards; E2E_CLUSTER names one to use, and to keep, instead."""
    with _foreign_cluster() if foreign.is_meant() else _own_cluster() as made:
        made.deploy_operator()
        yield made


@contextmanager
def _own_cluster() -> Iterator[Environment]:
    kept = os.environ.get("E2E_CLUSTER")
    name = kept or f"e2e-{os.getpid() % 100000}"
    try:
        tool("hack/cluster", "up", "--name", name)
        status = json.loads(tool("hack/cluster", "status", "--name", name, "-o", "json"))
        names = json.loads(tool("hack/images", "names", "-o", "json"))
        yield Environment(
            kube=Kube(kubeconfig=Path(status["kubeconfig"]), bin_dir=Path(status["binDir"])),
            operator_image=names["operator"],
            operator_target=("--name", name),
            storage_target=("--name", name),
            own=Inside(name=name, audit_log=Path(status["auditLog"]), models_dir=Path(status["modelsHostDir"])),
        )
    finally:
        if not kept:
            tool("hack/cluster", "down", "--name", name)


@contextmanager
def _foreign_cluster() -> Iterator[Environment]:
    settings = foreign.Settings.read()
    bin_dir = Path(tool("hack/cluster", "bin-dir").strip())
    kube = Kube(kubeconfig=settings.kubeconfig, bin_dir=bin_dir)
    with foreign.borrowed(kube, settings=settings, release=RELEASE, namespace=OPERATOR_NAMESPACE):
        yield Environment(
            kube=kube,
            operator_image=settings.operator_image,
            operator_target=settings.operator_target,
            storage_target=settings.storage_target,
            own=None,
        )


@pytest.fixture
def audited(environment: Environment) -> None:
    """For tests that do something before they ask for the audit log."""
    environment.inside(_AUDIT)


@pytest.fixture(scope="session")
def gpus(environment: Environment) -> None:
    """For tests that run or count GPUs: the two fake ones on a node, which a cluster of ours always has."""
    if environment.own is None and not foreign.has_fake_gpus(environment.kube):
        pytest.skip(f"needs a node with two fake GPUs: {foreign.FAKE_GPUS}=1 gives one to the cluster")


@pytest.fixture(scope="module")
def kube(environment: Environment, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A namespace for the module, with the claim `models`; what the module made in it goes at the end."""
    namespace = request.module.__name__.rpartition(".")[2].replace("_", "-")
    within = environment.kube.within(namespace)
    eventually(lambda: within.get("namespace", namespace) is None, within=60)  # that of a run before, in a kept cluster
    within("create", "namespace", namespace)
    labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    within("label", "namespace", namespace, *labels)
    environment.storage(namespace)
    yield within
    within("delete", "llamamodels", "--all", "--wait")
    eventually(lambda: not within.select("pods", "app.kubernetes.io/managed-by=llamamodel-operator"), within=60)
    within("delete", "namespace", namespace, "--wait=false")  # nothing that runs is left, and an empty one takes 10 s
    within("delete", "persistentvolume", f"models-{namespace}", "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def in_cluster(environment: Environment, kube: Kube) -> Callable[..., str]:
    """Runs a Python script in a pod of the namespace: a client that reaches Services as clients do."""
    _start_pod(kube, environment.operator_image, "client")

    def run(script: str, *arguments: str) -> str:
        return kube("exec", "client", "--", PYTHON, "-c", script, *arguments, timeout=300)

    return run


@pytest.fixture(scope="module")
def client(kube: Kube, in_cluster: Callable[..., str]) -> Client:
    """Asks the models of the module."""
    return Client(run=in_cluster, namespace=kube.namespace)


@pytest.fixture(scope="module")
def gateway(environment: Environment) -> Iterator[str]:
    """The gateway, as one pod; the name of its host."""
    environment.deploy_operator("gateway.enabled=true", "gateway.replicas=1")
    environment.system("rollout", "status", f"deployment/{GATEWAY}", "--timeout=120s", timeout=130)
    yield f"{GATEWAY}.{OPERATOR_NAMESPACE}.svc"
    environment.deploy_operator()


@pytest.fixture(scope="session")
def at_process(environment: Environment) -> Iterator[Callable[..., None]]:
    """Runs a Python script on the node, with all its rights, for the one process of a pod that runs a program: it finds
    the process's folder in /proc as `process`, and more arguments as `arguments`."""
    environment.inside("the processes and routes of the node")
    kube = environment.kube.within("kube-system")
    _start_pod(kube, environment.operator_image, "privileged", privileged=True)

    def run(script: str, pod_uid: str, program: str, *arguments: str) -> None:
        kube("exec", "privileged", "--", PYTHON, "-c", _FIND_PROCESS + script, pod_uid, program, *arguments)

    yield run
    kube.delete("pod", "privileged", "--grace-period=0", "--force")


@pytest.fixture(scope="session")
def send_signal(at_process: Callable[..., None]) -> Callable[..., None]:
    """Sends a signal to a pod's process (default: the operator's) from outside its container: frozen means frozen."""

    def send(pod_uid: str, signal_name: str, program: str = "llamamodel-operator") -> None:
        at_process(_SEND_SIGNAL, pod_uid, program, signal_name)

    return send


_FIND_PROCESS = """
import pathlib, sys

uid, program, *arguments = sys.argv[1:]
found = []
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        cgroup, command = (process / "cgroup").read_text(), (process / "cmdline").read_bytes()
    except OSError:
        continue
    if (uid in cgroup or uid.replace("-", "_") in cgroup) and program.encode() in command:
        found.append(process)
if len(found) != 1:
    sys.exit(f"{len(found)} processes of {program} found")
(process,) = found
"""

_SEND_SIGNAL = """
import os, signal

os.kill(int(process.name), signal.Signals[arguments[0]])
"""


def _start_pod(kube: Kube, image: str, name: str, *, privileged: bool = False) -> None:
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PYTHON, "-c", "import time; time.sleep(86400)"],
        "securityContext": {"privileged": True, "runAsUser": 0} if privileged else restricted,
    }
    spec = {"terminationGracePeriodSeconds": 0, "hostPID": privileged, "containers": [container]}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    kube("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def tool(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=3000
    )
    assert done.returncode == 0, f"{' '.join(arguments)} failed, see its output"
    return done.stdout
