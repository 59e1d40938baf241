"""Puts the operator, and models for it, into a local cluster: what the demo and the end-to-end tests install.

    python3 hack/deploy operator --name dev [--set KEY=VALUE ...]
    python3 hack/deploy storage --name dev --namespace default

`operator` builds the images, gives them to the node and installs the chart, in a namespace that enforces Pod Security's
level `restricted`; `storage` makes the claim `models` in a namespace, on a folder of the node that holds Gemma 3 270M.
Both can be run again. The cluster is one of `python3 hack/cluster`; it must be up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "llamamodel-operator"
NAMESPACE = "llamamodel-system"


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
    for verb in (operator, storage):
        verb.add_argument("--name", default=os.environ.get("LLAMAMODEL_CLUSTER", "dev"), help="the cluster instance")
    arguments = parser.parse_args()
    try:
        cluster = Cluster(arguments.name)
        if arguments.verb == "operator":
            install_operator(cluster, values=arguments.set)
        else:
            make_storage(cluster, namespace=arguments.namespace)
    except DeployError as error:
        print(f"hack/deploy: {error}", file=sys.stderr)
        return 1
    return 0


class Cluster:
    """A running local cluster."""

    def __init__(self, name: str) -> None:
        self.name = name
        status = json.loads(_run([sys.executable, "hack/cluster", "status", "--name", name, "-o", "json"], check=False))
        if status.get("state") != "running":
            raise DeployError(f"cluster {name!r} is not up: run `python3 hack/cluster up --name {name}`")
        self.models_host_dir = Path(status["modelsHostDir"])
        self.models_node_path: str = status["modelsNodePath"]
        self._environment = {
            **os.environ,
            "KUBECONFIG": status["kubeconfig"],
            "PATH": f"{status['binDir']}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Runs kubectl or helm against the cluster; raises DeployError."""
        return _run(list(command), environment=self._environment, stdin=stdin)


def install_operator(cluster: Cluster, *, values: list[str]) -> None:
    """Images that the node has already are not sent again; the chart is installed or upgraded."""
    images = json.loads(_run([sys.executable, "hack/images", "build", "-o", "json"], progress=True))
    names = json.loads(_run([sys.executable, "hack/images", "names", "-o", "json"]))
    nodes = json.loads(cluster.run("kubectl", "get", "nodes", "-o", "json"))["items"]
    present = {name for node in nodes for image in node["status"].get("images", []) for name in image["names"]}
    missing = [image["archive"] for image in images if image["image"] not in present]
    if missing:
        _run([sys.executable, "hack/cluster", "load-image", "--name", cluster.name, *missing], progress=True)
    repository, _, tag = names["operator"].rpartition(":")
    engine = names["engine"]
    chart_values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "engineImages": {"cpu": engine, "gpu": engine, "byResource": {"nvidia.com/gpu": engine}},
    }
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}}
    cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
    command = ["helm", "upgrade", "--install", RELEASE, "charts/llamamodel-operator", "--namespace", NAMESPACE]
    command += ["--wait", "--timeout", "3m", "--values", "-"]
    command += [part for value in values for part in ("--set", value)]
    cluster.run(*command, stdin=json.dumps(chart_values))
    print(f"operator {names['operator']} is installed in namespace {NAMESPACE}")


def make_storage(cluster: Cluster, *, namespace: str) -> None:
    """A volume on the node's models folder, bound to the claim `models` of the namespace."""
    fetch = [sys.executable, "hack/models", "fetch", "gemma3-270m", "--into", str(cluster.models_host_dir)]
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


def _run(
    command: list[str],
    *,
    environment: dict[str, str] | None = None,
    stdin: str | None = None,
    progress: bool = False,
    check: bool = True,
) -> str:
    """Runs a command from the root of the project; its progress (stderr) is shown or kept for the error."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        input=stdin,
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
