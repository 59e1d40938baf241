"""What kube-score and checkov find in the chart, as it is by default and with everything switched on.

Nothing but what `IGNORED` names, and each of that. `python3 hack/cluster build --only kube-score` builds kube-score;
checkov is installed from the lock in `hack/checkov` by its first run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.chart import render
from support.chart_switches import everything

ROOT = Path(__file__).parents[2]
RENDERED = {"defaults": "{}", "everything": everything()}
OPTIONAL = ("container-ports-check", "container-seccomp-profile")
"""Checks of kube-score that it makes only where asked to."""

Finding = tuple[str, str, str]
"""The rendering, kind and name of the object, and the check."""


@dataclass(frozen=True)
class Ignored:
    """A finding that is none, in all places where it is found."""

    check: str
    where: frozenset[tuple[str, str]]
    why: str


OPERATOR_BY_DEFAULT = ("defaults", "Deployment llamamodel-operator")
OPERATOR = ("everything", "Deployment llamamodel-operator")
GATEWAY = ("everything", "Deployment llamamodel-operator-gateway")
ALL_PODS = frozenset({OPERATOR_BY_DEFAULT, OPERATOR, GATEWAY})

_THROTTLED = "A pod that is throttled answers probes too late; requests say what it needs, memory is limited."
_PULLED = "A tag is never moved, and a node that has the image needs no registry to start a pod; or image.pullPolicy."
_CLOSED = "networkPolicy.enabled is off by default: policies without the API server's address cut the operator off."
_WRITES_NOTHING = "The root file system is read-only, without any emptyDir: a pod writes its log alone, which rotates."

IGNORED = (
    Ignored("kube-score container-resources: CPU limit is not set", ALL_PODS, _THROTTLED),
    Ignored("checkov CKV_K8S_11: CPU limits should be set", ALL_PODS, _THROTTLED),
    Ignored(
        "kube-score container-image-pull-policy: ImagePullPolicy is not set to Always",
        frozenset({OPERATOR_BY_DEFAULT}),
        _PULLED,
    ),
    Ignored("checkov CKV_K8S_15: Image Pull Policy should be Always", frozenset({OPERATOR_BY_DEFAULT}), _PULLED),
    Ignored(
        "checkov CKV_K8S_43: Image should use digest",
        frozenset({OPERATOR_BY_DEFAULT}),
        "Which registry's image it is, and so its digest, is for who installs to say: image.digest.",
    ),
    Ignored(
        "kube-score pod-networkpolicy: The pod does not have a matching NetworkPolicy",
        frozenset({OPERATOR_BY_DEFAULT}),
        _CLOSED,
    ),
    Ignored(
        "checkov CKV2_K8S_6: Minimize the admission of pods which lack an associated NetworkPolicy",
        frozenset({("defaults", "Pod llamamodel-operator")}),
        _CLOSED,
    ),
    Ignored(
        "kube-score networkpolicy-targets-pod: The NetworkPolicys selector doesn't match any pods",
        frozenset({("everything", "NetworkPolicy llamamodel-operator-models")}),
        "It is for the pods of models, which the operator makes and the chart does not have.",
    ),
    Ignored(
        "kube-score container-ephemeral-storage-request-and-limit: Ephemeral Storage request is not set",
        ALL_PODS,
        _WRITES_NOTHING,
    ),
    Ignored(
        "kube-score container-ephemeral-storage-request-and-limit: Ephemeral Storage limit is not set",
        ALL_PODS,
        _WRITES_NOTHING,
    ),
    Ignored(
        "kube-score deployment-replicas: Deployment few replicas",
        frozenset({OPERATOR_BY_DEFAULT}),
        "Models serve while no operator runs; who wants a stand-by sets replicas.",
    ),
    Ignored(
        "kube-score deployment-has-host-podantiaffinity: Deployment does not have a host podAntiAffinity set",
        frozenset({OPERATOR, GATEWAY}),
        "topologySpreadConstraints spread the pods over nodes, and go on to do so with more pods than nodes.",
    ),
    Ignored(
        "checkov CKV_K8S_38: Ensure that Service Account Tokens are only mounted where necessary",
        ALL_PODS,
        "Operator and gateway are clients of the API server.",
    ),
    Ignored(
        "checkov CKV_K8S_155: "
        "Minimize ClusterRoles that grant control over validating or mutating admission webhook configurations",
        frozenset({("defaults", "ClusterRole llamamodel-operator-webhook")}),
        "By name, its own configuration alone, where it has to put the CA of its certificate.",
    ),
)


def kube_score(rendering: str) -> Iterator[Finding]:
    """What it says about one rendering; it asks nobody."""
    bin_dir = subprocess.run(
        [sys.executable, ROOT / "hack" / "cluster", "bin-dir"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    enabled = (part for check in OPTIONAL for part in ("--enable-optional-test", check))
    options = ("--output-format", "json", "--kubernetes-version", "v1.29", *enabled)
    done = subprocess.run(
        [Path(bin_dir) / "kube-score", "score", *options, "-"],
        input=_manifests(rendering),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    for one in json.loads(done.stdout):
        name = f"{one['type_meta']['kind']} {one['object_meta']['name']}"
        for made in one["checks"]:
            if not made["skipped"] and made["grade"] < _NOTHING_FOUND:
                assert made["comments"], made
                for comment in made["comments"]:
                    yield rendering, name, f"kube-score {made['check']['id']}: {comment['summary']}"


_NOTHING_FOUND = 10
"""kube-score's best grade."""


def checkov(rendering: str, folder: Path) -> Iterator[Finding]:
    """What it says about one rendering; it asks nobody."""
    file = folder / f"{rendering}.yaml"
    file.write_text(_manifests(rendering))
    uv_run = (ROOT / "hack" / "uv", "run", "--project", ROOT / "hack" / "checkov", "--frozen", "--quiet")
    options = ("--framework", "kubernetes", "--output", "json", "--quiet", "--compact", "--skip-download")
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        [*uv_run, "checkov", "--file", file, *options], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["summary"]["parsing_errors"] == 0, answer
    assert answer["summary"]["passed"] > 0, answer
    for found in answer["results"]["failed_checks"]:
        kind, _, name, *_ = found["resource"].split(".")
        yield rendering, f"{kind} {name}", f"checkov {found['check_id']}: {found['check_name']}"


@cache
def _manifests(rendering: str) -> str:
    return yaml.dump_all(render(RENDERED[rendering]).all, Dumper=yaml.CSafeDumper)


def ignored(tool: str) -> set[Finding]:
    """What the tool is expected to find."""
    return {(*place, entry.check) for entry in IGNORED for place in entry.where if entry.check.startswith(tool)}


def test_kube_score_finds_what_is_ignored_and_nothing_else() -> None:
    assert {finding for rendering in RENDERED for finding in kube_score(rendering)} == ignored("kube-score ")


@pytest.mark.timeout(600)  # its first run installs it, and compiles a hundred packages to bytecode
def test_checkov_finds_what_is_ignored_and_nothing_else(tmp_path: Path) -> None:
    assert {finding for rendering in RENDERED for finding in checkov(rendering, tmp_path)} == ignored("checkov ")


def test_with_everything_switched_on_there_is_every_kind_that_the_chart_has() -> None:
    kinds = {doc["kind"] for values in RENDERED.values() for doc in render(values).all}
    assert {"Deployment", "HorizontalPodAutoscaler", "HTTPRoute", "Ingress", "NetworkPolicy"} < kinds
    assert {"PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Certificate", "ServiceAccount"} < kinds
