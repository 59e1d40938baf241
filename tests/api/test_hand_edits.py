"""Whoever edits or deletes a child by hand finds it as it was within seconds; what is not ours stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from .harness.audit import AuditLog, summary
from .harness.bench import Bench
from .harness.kube import Kube, Obj
from .harness.models import a_model
from .harness.process import OperatorProcess
from .harness.waiting import eventually

SECONDS = 5.0
"""Generous for a busy machine; it takes well under one in practice."""


@dataclass(frozen=True)
class Edit:
    """A hand edit of a child named gemma, and whether the child is as it should be."""

    title: str
    kind: str
    do: Callable[[Kube, str], object]


def _merge(kind: str, patch: Mapping[str, Any]) -> Callable[[Kube, str], object]:
    return lambda kube, namespace: kube.merge(kind, namespace, "gemma", patch)


def _edit(kind: str, title: str, patch: Mapping[str, Any]) -> Edit:
    return Edit(title, kind, _merge(kind, patch))


def _patch(kind: str, title: str, *operations: Mapping[str, Any]) -> Edit:
    return Edit(title, kind, lambda kube, namespace: kube.patch(kind, namespace, "gemma", operations))


def _replace(kind: str, title: str, path: str, value: object) -> Edit:
    return _patch(kind, title, {"op": "replace", "path": path, "value": value})


def _remove(kind: str, title: str, path: str) -> Edit:
    return _patch(kind, title, {"op": "remove", "path": path})


def _template(patch: Mapping[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": patch}}


CONTAINER = "/spec/template/spec/containers/0"
D, S = "Deployment", "Service"

EDITS = (
    _edit(D, "replicas", {"spec": {"replicas": 7}}),
    _replace(D, "the arguments", f"{CONTAINER}/args", ["--model", "/other.gguf"]),
    _patch(D, "an argument more", {"op": "add", "path": f"{CONTAINER}/args/-", "value": "--verbose"}),
    _remove(D, "no arguments", f"{CONTAINER}/args"),
    _replace(D, "the image", f"{CONTAINER}/image", "example.com/other:1"),
    _remove(D, "a variable removed", f"{CONTAINER}/env/1"),
    _replace(D, "a variable's value", f"{CONTAINER}/env/1/value", "other"),
    _edit(D, "a label removed", {"metadata": {"labels": {"app.kubernetes.io/instance": None}}}),
    _edit(
        D,
        "the label that the watch selects by removed",
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
    ),
    _edit(D, "another manager in the label", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}),
    _edit(D, "all labels removed", {"metadata": {"labels": None}}),
    _edit(D, "the annotation removed", {"metadata": {"annotations": {"llamamodel.dev/applied-hash": None}}}),
    _edit(D, "all annotations removed", {"metadata": {"annotations": None}}),
    _edit(D, "the strategy", {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}),
    _edit(D, "the progress deadline", {"spec": {"progressDeadlineSeconds": 1200}}),
    _replace(D, "the startup probe's period", f"{CONTAINER}/startupProbe/periodSeconds", 9),
    _remove(D, "no liveness probe", f"{CONTAINER}/livenessProbe"),
    _replace(D, "the claim of a volume", "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName", "other"),
    _patch(
        D,
        "a volume and its mount removed",
        {"op": "remove", "path": f"{CONTAINER}/volumeMounts/0"},
        {"op": "remove", "path": "/spec/template/spec/volumes/0"},
    ),
    _replace(D, "a service account's token mounted", "/spec/template/spec/automountServiceAccountToken", True),
    _replace(D, "a writable root", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False),
    _edit(D, "a pod label removed", _template({"metadata": {"labels": {"team": None}}})),
    _edit(D, "a pod annotation changed", _template({"metadata": {"annotations": {"note": "other"}}})),
    _edit(S, "the selector", {"spec": {"selector": {"llamamodel.dev/model": "other"}}}),
    _edit(S, "no selector", {"spec": {"selector": None}}),
    _replace(S, "the target port", "/spec/ports/0/targetPort", 9999),
    _edit(S, "a label removed", {"metadata": {"labels": {"app.kubernetes.io/name": None}}}),
    _edit(S, "all labels removed", {"metadata": {"labels": None}}),
    _edit(S, "the type", {"spec": {"type": "NodePort"}}),
)

BY_ANOTHER_KEY = (
    _replace(S, "the port", "/spec/ports/0/port", 80),
    _replace(D, "the container's port", f"{CONTAINER}/ports/0/containerPort", 9090),
    _patch(
        D,
        "a probe of another kind",
        {"op": "remove", "path": f"{CONTAINER}/readinessProbe/tcpSocket"},
        {"op": "add", "path": f"{CONTAINER}/readinessProbe/exec", "value": {"command": ["true"]}},
    ),
    _replace(D, "a volume of another kind", "/spec/template/spec/volumes/0", {"name": "model", "emptyDir": {}}),
    _replace(
        D,
        "a variable from elsewhere",
        f"{CONTAINER}/env/1",
        {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ),
)
"""Edits after which ours and the stranger's cannot both stand: a list item under another key, another member of a
union."""

THE_MODELS_NAME = (
    _edit(D, "the label with the model's name removed", {"metadata": {"labels": {"llamamodel.dev/model": None}}}),
    _edit(S, "the label with the model's name removed", {"metadata": {"labels": {"llamamodel.dev/model": None}}}),
    _edit(D, "another model's name in the label", {"metadata": {"labels": {"llamamodel.dev/model": "other"}}}),
)
"""Edits after which the watch's event does not say any more which model the child belongs to."""

OWNERSHIP = (
    _edit(D, "the owner removed", {"metadata": {"ownerReferences": None}}),
    _edit(S, "the owner removed", {"metadata": {"ownerReferences": None}}),
)


def _ours(child: Obj) -> Obj:
    """What the operator and nobody else is responsible for."""
    metadata = {key: child["metadata"].get(key) for key in ("labels", "annotations", "ownerReferences")}
    spec = {key: value for key, value in child["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return {"metadata": metadata, "spec": spec}


@pytest.fixture
def gemma(bench: Bench, operator: OperatorProcess) -> Obj:
    """A model whose children exist and whose status is written."""
    where = {"env": [{"name": "WHERE", "value": "here"}], "podLabels": {"team": "a"}, "podAnnotations": {"note": "x"}}
    bench.play_bound_claim()
    bench.create(a_model("gemma").with_(**where))
    return bench.wait_for_reason("gemma", "Starting")


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_a_hand_edit_is_put_back(edit: Edit, bench: Bench, gemma: Obj, kube: Kube) -> None:
    before = _ours(bench.get(edit.kind, "gemma"))

    edit.do(kube, bench.namespace)

    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)
    assert bench.get("LlamaModel", "gemma")["status"] == gemma["status"]


@pytest.mark.parametrize("edit", THE_MODELS_NAME, ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_a_child_without_the_name_of_its_model_is_put_back(edit: Edit, bench: Bench, gemma: Obj, kube: Kube) -> None:
    before = _ours(bench.get(edit.kind, "gemma"))

    edit.do(kube, bench.namespace)

    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)


@pytest.mark.parametrize("edit", BY_ANOTHER_KEY, ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_a_hand_edit_that_cannot_stand_beside_ours_is_put_back(
    edit: Edit, bench: Bench, gemma: Obj, kube: Kube
) -> None:
    before = _ours(bench.get(edit.kind, "gemma"))

    edit.do(kube, bench.namespace)

    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)


@pytest.mark.parametrize("edit", OWNERSHIP, ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_a_removed_owner_is_put_back(edit: Edit, bench: Bench, gemma: Obj, kube: Kube) -> None:
    before = _ours(bench.get(edit.kind, "gemma"))

    edit.do(kube, bench.namespace)

    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_a_deleted_child_is_made_anew(kind: str, bench: Bench, gemma: Obj) -> None:
    before = bench.get(kind, "gemma")

    bench.delete(kind, "gemma")

    after = eventually(
        lambda: bench.find(kind, "gemma"),
        until=lambda now: now is not None and now["metadata"]["uid"] != before["metadata"]["uid"],
        within=SECONDS,
    )
    assert after is not None
    assert _ours(after) == _ours(before)


def test_scaling_the_deployment_is_undone(bench: Bench, gemma: Obj) -> None:
    bench.kubectl("scale", "deploy/gemma", "--replicas=5")

    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"], until=lambda n: n == 1, within=SECONDS)


def test_a_repair_is_one_write_and_is_told_in_log_and_metrics(
    bench: Bench, gemma: Obj, operator: OperatorProcess, audit: AuditLog
) -> None:
    mark = audit.mark()
    repaired = operator.metric("drift_repaired_total", kind="Deployment")
    bench.edit("Deployment", "gemma", {"spec": {"replicas": 7}})

    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"], until=lambda n: n == 1, within=SECONDS)
    eventually(lambda: operator.metric("drift_repaired_total", kind="Deployment"), until=lambda n: n == repaired + 1)

    told = [line for line in operator.log_lines if line.get("model") == f"{bench.namespace}/gemma"]
    assert told[-1]["message"] == "put Deployment back: spec.replicas is 7, not 1"
    assert [str(write) for write in mark.writes()] == [f"patch deployments {bench.namespace}/gemma (200)"]


def test_what_others_added_stays_and_is_not_fought_over(
    bench: Bench, gemma: Obj, operator: OperatorProcess, kube: Kube, audit: AuditLog
) -> None:
    mark = audit.mark()
    sidecar = {"name": "proxy", "image": "example.com/proxy:1"}
    variable = {"name": "llama-server", "env": [{"name": "EXTRA", "value": "1"}]}
    kube.strategic(
        "Deployment",
        bench.namespace,
        "gemma",
        {
            "metadata": {"labels": {"team": "b"}, "annotations": {"example.com/note": "x"}},
            "spec": {
                "template": {
                    "metadata": {"annotations": {"sidecar.example.com/injected": "true"}},
                    "spec": {"containers": [sidecar, variable], "volumes": [{"name": "more", "emptyDir": {}}]},
                }
            },
        },
    )
    port = {"name": "metrics", "port": 9090}
    extra = {
        "metadata": {"annotations": {"example.com/note": "x"}},
        "spec": {"ports": [port], "sessionAffinity": "ClientIP"},
    }
    kube.strategic("Service", bench.namespace, "gemma", extra)

    # a repair, which must leave all of that alone
    bench.edit("Deployment", "gemma", {"spec": {"replicas": 7}})
    eventually(lambda: bench.get("Deployment", "gemma")["spec"]["replicas"], until=lambda n: n == 1, within=SECONDS)
    # and a change by the user
    bench.edit_spec("gemma", engine={"threads": 3})
    bench.wait_until_settled("gemma")

    deployment, service = bench.get("Deployment", "gemma"), bench.get("Service", "gemma")
    template = deployment["spec"]["template"]
    by_name = {container["name"]: container for container in template["spec"]["containers"]}
    assert deployment["metadata"]["labels"]["team"] == "b"
    assert deployment["metadata"]["annotations"]["example.com/note"] == "x"
    assert template["metadata"]["annotations"]["sidecar.example.com/injected"] == "true"
    assert by_name["proxy"]["image"] == "example.com/proxy:1"
    assert {"name": "EXTRA", "value": "1"} in by_name["llama-server"]["env"]
    assert "--threads" in by_name["llama-server"]["args"]
    assert "more" in [volume["name"] for volume in template["spec"]["volumes"]]
    assert service["metadata"]["annotations"]["example.com/note"] == "x"
    assert sorted(found["port"] for found in service["spec"]["ports"]) == [8080, 9090]
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert summary(mark.writes()) == ["patch deployments", "patch deployments", "patch llamamodels/status"]


@pytest.mark.parametrize("edit", BY_ANOTHER_KEY, ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_what_others_added_stays_also_where_an_edit_could_not_stand_beside_ours(
    edit: Edit, bench: Bench, gemma: Obj, kube: Kube
) -> None:
    added = {
        "Deployment": ("/spec/template/spec/containers/-", {"name": "proxy", "image": "example.com/proxy:1"}),
        "Service": ("/spec/ports/-", {"name": "metrics", "port": 9090, "protocol": "TCP"}),
    }
    path, item = added[edit.kind]
    kube.patch(edit.kind, bench.namespace, "gemma", [{"op": "add", "path": path, "value": item}])
    before = _ours(bench.get(edit.kind, "gemma"))

    edit.do(kube, bench.namespace)

    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)


@pytest.mark.parametrize("edit", [EDITS[0], *BY_ANOTHER_KEY], ids=lambda edit: f"{edit.kind}: {edit.title}")
def test_what_the_user_takes_out_of_the_spec_goes_also_after_a_repair(
    edit: Edit, bench: Bench, gemma: Obj, kube: Kube
) -> None:
    before = _ours(bench.get(edit.kind, "gemma"))
    edit.do(kube, bench.namespace)
    eventually(lambda: _ours(bench.get(edit.kind, "gemma")), until=lambda now: now == before, within=SECONDS)

    bench.edit_spec("gemma", env=None, podLabels=None, podAnnotations=None)
    bench.wait_until_settled("gemma")

    template = bench.get("Deployment", "gemma")["spec"]["template"]
    assert [variable["name"] for variable in template["spec"]["containers"][0]["env"]] == ["HOME", "OMP_WAIT_POLICY"]
    assert "team" not in template["metadata"]["labels"]
    assert "note" not in template["metadata"]["annotations"]


def test_what_the_user_takes_out_of_the_spec_goes_from_the_children(bench: Bench, gemma: Obj) -> None:
    bench.edit_spec("gemma", env=None, podLabels=None, podAnnotations=None)

    bench.wait_until_settled("gemma")

    template = bench.get("Deployment", "gemma")["spec"]["template"]
    assert [variable["name"] for variable in template["spec"]["containers"][0]["env"]] == ["HOME", "OMP_WAIT_POLICY"]
    assert "team" not in template["metadata"]["labels"]
    assert "note" not in template["metadata"]["annotations"]


def test_labels_and_annotations_of_the_model_change_no_child(
    bench: Bench, gemma: Obj, operator: OperatorProcess
) -> None:
    before, passes = bench.versions(), operator.passes

    bench.edit("LlamaModel", "gemma", {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}})
    eventually(lambda: operator.passes, until=lambda now: now > passes, what="a pass over the model")

    after = bench.versions()
    assert after.pop("LlamaModel gemma") != before.pop("LlamaModel gemma")
    assert after == before
