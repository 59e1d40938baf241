"""The examples for Argo CD and Flux fit together: folders and names are there, and the claim comes before the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.llamamodel import LlamaModel
from support.gitops import ROOT

EXAMPLES = ROOT / "examples" / "gitops"
FOLDERS = sorted((EXAMPLES / "models").iterdir())
CHART = yaml.safe_load((ROOT / "charts/llamamodel-operator/Chart.yaml").read_text())


def objects(*files: Path) -> list[dict[str, Any]]:
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]


def one(kind: str, file: str) -> dict[str, Any]:
    (found,) = (found for found in objects(EXAMPLES / file) if found["kind"] == kind)
    return found


def wave(found: dict[str, Any]) -> int:
    return int(found["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_model_comes_after_its_claim_and_after_its_file(folder: Path) -> None:
    found = objects(*folder.iterdir())
    (raw,) = (one for one in found if one["kind"] == "LlamaModel")
    model = LlamaModel.parse({**raw, "metadata": {**raw["metadata"], "namespace": "x", "uid": "x", "generation": 1}})
    before = [one for one in found if wave(one) < wave(raw)]

    claim = model.spec.model.pvc.claim_name
    assert [one["metadata"]["name"] for one in before if one["kind"] == "PersistentVolumeClaim"] == [claim]
    (job,) = (one for one in before if one["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
    assert f"/models/{model.spec.model.pvc.path}" in pod["containers"][0]["args"]
    # A claim that waits for its first consumer is not healthy before a pod wants it: that pod must be of its wave.
    assert {wave(one) for one in before} == {0}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_claim_outlives_its_file_in_git_and_the_application(folder: Path) -> None:
    claims = [one for one in objects(*folder.iterdir()) if one["kind"] == "PersistentVolumeClaim"]
    assert claims
    for claim in claims:
        annotations = claim["metadata"]["annotations"]
        assert {"Prune=false", "Delete=false"} <= set(annotations["argocd.argoproj.io/sync-options"].split(","))
        assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_the_namespace_that_flux_puts_models_into_is_there_and_is_not_pruned() -> None:
    namespace = one("Namespace", "flux/models.yaml")["metadata"]
    assert namespace["name"] == one("Kustomization", "flux/models.yaml")["spec"]["targetNamespace"]
    assert namespace["annotations"]["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_applications_name_folders_that_there_are() -> None:
    application = one("Application", "argocd/application.yaml")
    (directory,) = one("ApplicationSet", "argocd/applicationset.yaml")["spec"]["generators"][0]["git"]["directories"]
    kustomization = one("Kustomization", "flux/models.yaml")

    assert EXAMPLES / application["spec"]["source"]["path"] in FOLDERS
    assert sorted(EXAMPLES.glob(directory["path"])) == FOLDERS
    folder = EXAMPLES / kustomization["spec"]["path"]
    (check,) = kustomization["spec"]["healthChecks"]
    names = {(found["kind"], found["metadata"]["name"]) for found in objects(*folder.iterdir())}
    assert (check["kind"], check["name"]) in names
    assert check["namespace"] == kustomization["spec"]["targetNamespace"]


def test_the_chart_is_the_one_that_there_is() -> None:
    source = one("Application", "argocd/operator.yaml")["spec"]["source"]
    repository = one("OCIRepository", "flux/operator.yaml")
    release = one("HelmRelease", "flux/operator.yaml")["spec"]

    assert (source["chart"], source["targetRevision"]) == (CHART["name"], CHART["version"])
    assert repository["spec"]["url"].endswith(f"/{CHART['name']}")
    assert repository["spec"]["ref"]["semver"] == f"{CHART['version'].rpartition('.')[0]}.x"
    assert release["chartRef"] == {"kind": "OCIRepository", "name": repository["metadata"]["name"]}
    assert release["releaseName"] == source["helm"]["releaseName"] == CHART["name"]
