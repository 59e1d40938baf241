"""The chart, as helm renders it, for the tests of the chart and of its rights.

The helm that is used: $HELM, else the local cluster's (`python3 hack/cluster bin-dir`), else the one on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = [
    "CHART",
    "NAME",
    "NAMESPACE",
    "Manifests",
    "Rule",
    "helm",
    "refusal",
    "render",
    "rules",
    "run_helm",
    "template",
]

CHART = Path(__file__).parents[2] / "charts" / "llamamodel-operator"
NAMESPACE = "llamamodel-system"
NAME = "llamamodel-operator"
OLDEST = "1.29.0"
"""The oldest Kubernetes that the chart takes."""

Rule = tuple[str, str, str]
"""Group, resource with the name of an object after `=`, verbs."""


class Manifests:
    """What helm renders, by kind and name."""

    def __init__(self, text: str) -> None:
        documents: list[dict[str, Any]] = [doc for doc in yaml.load_all(text, yaml.CSafeLoader) if doc]
        self.all = documents

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind, with the namespace before them where there is one."""
        objects = [doc["metadata"] for doc in self.all if doc["kind"] == kind]
        return sorted("/".join(filter(None, (meta.get("namespace"), meta["name"]))) for meta in objects)

    def one(self, kind: str, name: str | None = None, namespace: str | None = None) -> dict[str, Any]:
        """The one object of a kind, of a name, in a namespace."""
        found = [
            doc
            for doc in self.all
            if doc["kind"] == kind
            and name in (None, doc["metadata"]["name"])
            and namespace in (None, doc["metadata"].get("namespace"))
        ]
        assert len(found) == 1, f"expected one {kind}, found {self.names(kind)}"
        return found[0]

    @property
    def pod(self) -> dict[str, Any]:
        """The operator's pod."""
        spec: dict[str, Any] = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        """Its only container."""
        [container] = self.pod["containers"]
        return dict(container)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables with a value of their own."""
        return {entry["name"]: entry["value"] for entry in self.container["env"] if "value" in entry}


@cache
def helm() -> str:
    """The helm to test with. A missing one is a failure: the chart would go untested."""
    if named := os.environ.get("HELM"):
        return named
    cluster = [sys.executable, str(CHART.parents[1] / "hack" / "cluster"), "bin-dir"]
    bin_dir = subprocess.run(cluster, capture_output=True, text=True, check=False).stdout.strip()
    found = shutil.which("helm", path=os.pathsep.join(filter(None, (bin_dir, os.environ.get("PATH")))))
    if found is None:
        pytest.fail(
            "the tests of the chart need helm: run `python3 hack/cluster build`, install it, or set HELM to its path",
            pytrace=False,
        )
    return found


def run_helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Helm's answer; it asks no cluster."""
    env = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run([helm(), *arguments], input=stdin, capture_output=True, text=True, check=False, env=env)


def template(
    values: str, *arguments: str, release: str = NAME, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template` with values given as YAML."""
    options = ("--namespace", NAMESPACE, "--kube-version", OLDEST, "--values", "-", *arguments)
    return run_helm("template", release, str(chart), *options, stdin=values)


@cache
def render(values: str = "{}", *, release: str = NAME) -> Manifests:
    """The rendered chart, without the CustomResourceDefinition unless the values ask for it."""
    given = yaml.safe_load(values)
    done = template(yaml.safe_dump({"crds": {"enabled": False}, **given}), release=release)
    assert done.returncode == 0, done.stderr
    return Manifests(done.stdout)


def refusal(values: str) -> str:
    """What helm says about values that it refuses."""
    done = template(values)
    assert done.returncode != 0, f"helm took {values}"
    return done.stderr


def rules(role: Mapping[str, Any]) -> set[Rule]:
    """A role as (group, resource, verbs), with names of objects after `=`."""
    return {
        (group, "=".join((resource, *rule.get("resourceNames", ()))), " ".join(sorted(rule["verbs"])))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
