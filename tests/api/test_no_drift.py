"""What Argo CD applies stays as it was applied: after the operator's work its own comparison finds no difference.

No defaults are written into a spec, no annotations onto an object, so no rules about what to ignore are needed. Argo CD
does not run here; its code applies and compares (`gitops-rules`), from the client's side and from the server's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.llamamodel import LlamaModel
from support.gitops import gitops_rules

from .harness.bench import Bench
from .harness.cluster import REPOSITORY, Cluster
from .harness.kube import Obj
from .harness.models import a_claim, a_model

pytestmark = pytest.mark.usefixtures("operator")

EXAMPLES = {
    **{file.stem: [file] for file in sorted(REPOSITORY.glob("examples/*.yaml"))},
    **{
        f"gitops-{folder.name}": sorted(folder.iterdir())
        for folder in sorted(REPOSITORY.glob("examples/gitops/models/*"))
    },
}
"""What is applied together."""
SIDES = pytest.mark.parametrize("side", [(), ("--server-side",)], ids=["client-side", "server-side"])
TRACKING = "argocd.argoproj.io/tracking-id"

Side = tuple[str, ...]


def tracked(raw: Obj, bench: Bench) -> Obj:
    """As Argo CD makes it of a manifest: with a namespace, and the annotation by which it knows its own."""
    group, _, _ = raw["apiVersion"].rpartition("/")
    name = raw["metadata"]["name"]
    annotations = {
        **raw["metadata"].get("annotations", {}),
        TRACKING: f"app:{group}/{raw['kind']}:{bench.namespace}/{name}",
    }
    return {**raw, "metadata": {**raw["metadata"], "namespace": bench.namespace, "annotations": annotations}}


def sync(objects: list[Obj], side: Side, bench: Bench) -> None:
    gitops_rules("apply", *side, stdin=objects, kubeconfig=bench.cluster.kubeconfig)


def differences(objects: list[Obj], side: Side, bench: Bench) -> dict[str, tuple[Any, Any]]:
    """Of each object that is out of sync: what is there, and what would be after a sync."""
    found = json.loads(gitops_rules("diff", *side, stdin=objects, kubeconfig=bench.cluster.kubeconfig).stdout)
    assert len(found) == len(objects)
    return {f"{one['kind']} {one['name']}": (one["live"], one["wanted"]) for one in found if one["modified"]}


def serve(model: Obj, bench: Bench) -> None:
    """The operator has done all its work on it."""
    name = model["metadata"]["name"]
    if model["spec"].get("suspend"):
        bench.wait_for_reason(name, "Suspended")
        return
    bench.wait_for_reason(name, "Starting")
    bench.play_rollout(name, pods=model["spec"].get("replicas", 1))
    bench.wait_for_reason(name, "Ready")


def claims_of(models: list[Obj], bench: Bench) -> set[str]:
    """The PersistentVolumeClaims that their pods mount."""
    live = [LlamaModel.parse(bench.get("LlamaModel", model["metadata"]["name"])) for model in models]
    return {claim for model in live for claim in model.spec.claims}


@pytest.fixture(scope="module")
def classes(cluster: Cluster) -> None:
    """What an example names that belongs to no namespace: without them its pods are not admitted."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "inference"}}
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    both = [{**priority, "value": 1}, {**runtime, "handler": "nvidia"}]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(both))


@SIDES
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("classes")
def test_an_example_stays_in_sync(name: str, side: Side, bench: Bench) -> None:
    objects = [tracked(raw, bench) for file in EXAMPLES[name] for raw in yaml.safe_load_all(file.read_text())]
    models = [one for one in objects if one["kind"] == "LlamaModel"]

    sync(objects, side, bench)
    applied = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    for claim in claims_of(models, bench):
        if claim not in applied:
            bench.apply(a_claim(claim))
        bench.play_claim_phase(claim, "Bound")
    for model in models:
        serve(model, bench)

    assert models
    assert differences(objects, side, bench) == {}


@SIDES
def test_a_change_by_hand_is_found(side: Side, bench: Bench) -> None:
    objects = [tracked(a_model("gemma").with_(engine={"contextSize": 4096}).body, bench)]
    sync(objects, side, bench)
    bench.play_bound_claim()
    serve(objects[0], bench)

    bench.edit_spec("gemma", engine={"contextSize": 1024})

    live, wanted = differences(objects, side, bench)["LlamaModel gemma"]
    assert live["spec"]["engine"] == {"contextSize": 1024}
    assert wanted["spec"]["engine"] == {"contextSize": 4096}


@SIDES
def test_an_autoscaler_does_not_make_a_model_out_of_sync_that_names_no_replicas(side: Side, bench: Bench) -> None:
    objects = [tracked(a_model("gemma").body, bench)]
    sync(objects, side, bench)
    bench.play_bound_claim()
    serve(objects[0], bench)

    bench.kubectl("scale", "lm/gemma", "--replicas=3")
    bench.wait_until_settled("gemma")

    assert differences(objects, side, bench) == {}
    sync(objects, side, bench)
    assert bench.get("LlamaModel", "gemma")["spec"]["replicas"] == 3


def test_what_is_made_for_a_model_is_its_own_and_carries_nothing_of_argo_cds(bench: Bench) -> None:
    """Argo CD takes an object with its label or annotation and without an owner for one that it should prune."""
    labelled = a_model("gemma").labelled({"app.kubernetes.io/instance": "app"}).body
    objects = [tracked(labelled, bench)]
    sync(objects, (), bench)
    bench.play_bound_claim()
    serve(objects[0], bench)

    for kind in ("Deployment", "Service"):
        metadata = bench.get(kind, "gemma")["metadata"]
        assert [owner["kind"] for owner in metadata["ownerReferences"]] == ["LlamaModel"]
        assert TRACKING not in metadata.get("annotations", {})


def test_the_patch_of_argocd_cm_leaves_what_else_is_there(bench: Bench) -> None:
    bench.kubectl("create", "configmap", "argocd-cm", "--from-literal=url=https://x")
    file = REPOSITORY / "gitops" / "argocd" / "argocd-cm.yaml"

    bench.kubectl("patch", "configmap", "argocd-cm", "--patch-file", str(file))

    assert bench.get("ConfigMap", "argocd-cm")["data"] == {
        "url": "https://x",
        **yaml.safe_load(file.read_text())["data"],
    }
