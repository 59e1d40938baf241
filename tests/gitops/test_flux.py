"""What Flux makes of a LlamaModel, by its own code: with the expressions of the example, and without any.

The objects are those of Argo CD's cases, and so are the answers, in Flux's words. No expression can be evaluated for an
object without a status: Flux calls it Unknown, and asks again.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from support.gitops import ARGOCD, ROOT, gitops_rules

SCRIPTS = ARGOCD / "resource_customizations" / "llamamodel.dev" / "LlamaModel"
CASES: list[dict[str, Any]] = yaml.safe_load((SCRIPTS / "health_test.yaml").read_text())["tests"]
OBJECTS = [yaml.safe_load((SCRIPTS / case["inputPath"]).read_text()) for case in CASES]
WORDS = {"Healthy": "Current", "Suspended": "Current", "Progressing": "InProgress", "Degraded": "Failed"}
WANTED = [
    WORDS[case["healthStatus"]["status"]] if "status" in model else "Unknown"
    for case, model in zip(CASES, OBJECTS, strict=True)
]
(EXPRESSIONS,) = next(
    found["spec"]["healthCheckExprs"]
    for found in yaml.safe_load_all((ROOT / "examples/gitops/flux/models.yaml").read_text())
    if found["kind"] == "Kustomization"
)


def test_flux_says_by_expressions_what_argo_cd_says() -> None:
    given = {"expressions": EXPRESSIONS, "objects": OBJECTS}

    said = json.loads(gitops_rules("flux", stdin=given).stdout)

    assert _named(said) == _named(WANTED)


def _named(words: list[str]) -> dict[str, str]:
    return dict(zip((case["inputPath"] for case in CASES), words, strict=True))


def test_without_expressions_flux_waits_for_ready_once_there_is_a_status() -> None:
    said = json.loads(gitops_rules("kstatus", stdin={"objects": OBJECTS}).stdout)

    current = {path for path, word in _named(said).items() if word == "Current"}
    assert current == {"testdata/ready.yaml", "testdata/ready-with-warnings.yaml", "testdata/just-applied.yaml"}


@pytest.mark.parametrize("part", ["inProgress", "failed", "current"])
def test_each_expression_matters(part: str) -> None:
    given = {"expressions": {**EXPRESSIONS, part: "false"}, "objects": OBJECTS}

    said = json.loads(gitops_rules("flux", stdin=given).stdout)

    assert said != WANTED
