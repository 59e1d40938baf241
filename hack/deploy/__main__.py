"""Puts the operator, and models for it, into a cluster: what the demo and the end-to-end tests install.

    python3 hack/deploy operator --name dev [--set KEY=VALUE ...]
    python3 hack/deploy storage --name dev --namespace default

`operator` builds the images, gives them to the node and installs the chart, in a namespace that enforces Pod Security's
level `restricted`; `storage` makes the claim `models` in a namespace, on a folder of the node that holds Gemma 3 270M.
Both can be run again. The cluster is one of `python3 hack/cluster`; it must be up.

    python3 hack/deploy operator --kubeconfig FILE --operator-image IMAGE --engine-image IMAGE [--set KEY=VALUE ...]
    python3 hack/deploy storage --kubeconfig FILE --operator-image IMAGE [--storage-class NAME] --namespace default

do the same in any cluster. Its nodes have the images or can pull them; the claim is of a StorageClass, and a pod of the
operator's image writes the model there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "llamamodel-operator"
NAMESPACE = "llamamodel-system"
MODEL = "gemma3-270m"
PYTHON = "/opt/llamamodel/bin/python"
"""In the operator's image."""


class DeployError(Exception):
    """A step failed; the message says which, and what the tool said."""


def main() -> int:
    """Runs one verb; 1 where a step failed."""
    parser = argparse.ArgumentParser(
        prog="hack/deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    operator = verbs.add_parser("operator", help="build the images and install the chart")
    operator.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of the chart")
    storage = verbs.add_parser("storage", help="make the claim `models`, with a real model on it")
    storage.add_argument("--namespace", default="default")
    storage.add_argument("--storage-class", help="with --kubeconfig; the cluster's default unless given")
    operator.add_argument("--engine-image", help="with --kubeconfig: an image of llama-server")
    for verb in (operator, storage):
        verb.add_argument("--name", default=os.environ.get("LLAMAMODEL_CLUSTER", "dev"), help="the cluster instance")
        verb.add_argument("--kubeconfig", type=Path, help="any other cluster")
        verb.add_argument("--operator-image", help="with --kubeconfig")
    arguments = parser.parse_args()
    try:
        if arguments.kubeconfig:
            _deploy_elsewhere(arguments, parser)
            return 0
        cluster = LocalCluster(arguments.name)
        if arguments.verb == "operator":
            install_local_operator(cluster, values=arguments.set)
        else:
            make_storage(cluster, namespace=arguments.namespace)
    except DeployError as error:
        print(f"hack/deploy: {error}", file=sys.stderr)
        return 1
    return 0


def _deploy_elsewhere(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    bin_dir = _run([sys.executable, "hack/cluster", "bin-dir"], check=False).strip()
    cluster = Cluster(kubeconfig=arguments.kubeconfig.resolve(), bin_dir=bin_dir)
    if not arguments.operator_image:
        parser.error("--kubeconfig needs --operator-image")
    if arguments.verb == "storage":
        fill_claim(
            cluster,
            namespace=arguments.namespace,
            storage_class=arguments.storage_class,
            image=arguments.operator_image,
        )
    elif not arguments.engine_image:
        parser.error("--kubeconfig needs --engine-image")
    else:
        install_operator(
            cluster,
            image=arguments.operator_image,
            engine=arguments.engine_image,
            pull_policy="IfNotPresent",
            values=arguments.set,
        )


class Cluster:
    """A running cluster. Programs in `bin_dir` go before those on PATH."""

    def __init__(self, *, kubeconfig: Path, bin_dir: str) -> None:
        path = os.pathsep.join(filter(None, (bin_dir, os.environ["PATH"])))
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": path}

    def run(self, *command: str, stdin: str | IO[bytes] | None = None) -> str:
        """Runs kubectl or helm against the cluster; raises DeployError."""
        return _run(list(command), environment=self._environment, stdin=stdin)


class LocalCluster(Cluster):
    """One of hack/cluster."""

    def __init__(self, name: str) -> None:
        self.name = name
        status = json.loads(_run([sys.executable, "hack/cluster", "status", "--name", name, "-o", "json"], check=False))
        if status.get("state") != "running":
            raise DeployError(f"cluster {name!r} is not up: run `python3 hack/cluster up --name {name}`")
        self.models_host_dir = Path(status["modelsHostDir"])
        self.models_node_path: str = status["modelsNodePath"]
        super().__init__(kubeconfig=Path(status["kubeconfig"]), bin_dir=status["binDir"])


def install_local_operator(cluster: LocalCluster, *, values: list[str]) -> None:
    """Builds the images; those that the node has already are not sent again."""
    images = json.loads(_run([sys.executable, "hack/images", "build", "-o", "json"], progress=True))
    names = json.loads(_run([sys.executable, "hack/images", "names", "-o", "json"]))
    nodes = json.loads(cluster.run("kubectl", "get", "nodes", "-o", "json"))["items"]
    present = {name for node in nodes for image in node["status"].get("images", []) for name in image["names"]}
    missing = [image["archive"] for image in images if image["image"] not in present]
    if missing:
        _run([sys.executable, "hack/cluster", "load-image", "--name", cluster.name, *missing], progress=True)
    install_operator(cluster, image=names["operator"], engine=names["engine"], pull_policy="Never", values=values)


def install_operator(cluster: Cluster, *, image: str, engine: str, pull_policy: str, values: list[str]) -> None:
    """Installs or upgrades the chart."""
    repository, at, digest = image.partition("@")
    named = {"digest": digest}
    if not at:
        repository, _, tag = image.rpartition(":")
        named = {"tag": tag}
    chart_values: dict[str, Any] = {
        "image": {"repository": repository, **named, "pullPolicy": pull_policy},
        "engineImages": {"cpu": engine, "gpu": engine, "byResource": {"nvidia.com/gpu": engine}},
    }
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}}
    cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
    command = ["helm", "upgrade", "--install", RELEASE, "charts/llamamodel-operator", "--namespace", NAMESPACE]
    command += ["--wait", "--timeout", "3m", "--values", "-"]
    command += [part for value in values for part in ("--set", value)]
    cluster.run(*command, stdin=json.dumps(chart_values))
    print(f"operator {image} is installed in namespace {NAMESPACE}")


def make_storage(cluster: LocalCluster, *, namespace: str) -> None:
    """A volume on the node's models folder, bound to the claim `models` of the namespace."""
    fetch = [sys.executable, "hack/models", "fetch", MODEL, "--into", str(cluster.models_host_dir)]
    _run(fetch, progress=True)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"models-{namespace}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": "models"},
            "hostPath": {"path": cluster.models_node_path, "type": "Directory"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"models-{namespace}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    both = {"apiVersion": "v1", "kind": "List", "items": [volume, claim]}
    cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(both))
    print(f"claim models is in namespace {namespace}")


def fill_claim(cluster: Cluster, *, namespace: str, storage_class: str | None, image: str) -> None:
    """The claim `models` of a StorageClass; a pod writes the model there where it is not there yet."""
    file = Path(_run([sys.executable, "hack/models", "fetch", MODEL], progress=True).strip())
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load-models", "namespace": namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "load",
                    "image": image,
                    "command": [PYTHON, "-c", "import time; time.sleep(3600)"],
                    "securityContext": restricted,
                    "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    }
    both = {"apiVersion": "v1", "kind": "List", "items": [claim, pod]}
    cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(both))
    kubectl = ("kubectl", "--namespace", namespace)
    python = (*kubectl, "exec", "-i", "load-models", "--", PYTHON, "-c")
    size = str(file.stat().st_size)
    try:
        cluster.run(*kubectl, "wait", "--for=condition=Ready", "pod/load-models", "--timeout=180s")
        if cluster.run(*python, _SIZE, file.name).strip() != size:
            with file.open("rb") as content:
                cluster.run(*python, _LOAD, file.name, size, stdin=content)
    finally:
        cluster.run(*kubectl, "delete", "pod", "load-models", "--wait")
    print(f"claim models is in namespace {namespace}")


_SIZE = """
import pathlib, sys
file = pathlib.Path("/models", sys.argv[1])
print(file.stat().st_size if file.exists() else "none")
"""

_LOAD = """
import pathlib, shutil, sys
file, size = pathlib.Path("/models", sys.argv[1]), int(sys.argv[2])
new = file.with_suffix(".new")
with new.open("wb") as target:
    shutil.copyfileobj(sys.stdin.buffer, target, 1 << 20)
if new.stat().st_size != size:
    sys.exit(f"{new.stat().st_size} of {size} bytes came")
new.rename(file)
"""


def _run(
    command: list[str],
    *,
    environment: dict[str, str] | None = None,
    stdin: str | IO[bytes] | None = None,
    progress: bool = False,
    check: bool = True,
) -> str:
    """Runs a command from the root of the project; its progress (stderr) is shown or kept for the error."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        **({"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}),
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.PIPE,
        text=True,
        check=False,
    )
    if check and done.returncode != 0:
        shown = " ".join(Path(command[0]).name if index == 0 else part for index, part in enumerate(command[:6]))
        raise DeployError(f"`{shown} …` failed with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
