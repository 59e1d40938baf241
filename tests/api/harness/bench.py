"""A test's own namespace: what a user does in it, what the cluster's missing controllers do, what can be seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cluster import Cluster
from .kube import Kube, Obj, RefusedByServerError
from .models import CLAIM, Manifest, a_claim
from .waiting import eventually

__all__ = ["Bench", "condition"]

MODEL_LABEL = "llamamodel.dev/model"
_LEFTOVERS = ("LlamaModel", "Deployment", "Service", "Pod", "PersistentVolumeClaim", "ResourceQuota", "Event")


def condition(model: Obj, kind: str = "Ready") -> Obj:
    """A condition of an object, empty where it has none of that type."""
    conditions: list[Obj] = (model.get("status") or {}).get("conditions") or []
    return next((found for found in conditions if found["type"] == kind), {})


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One namespace. Nothing but the tests and the operator acts in it: there are no controllers and no kubelet,
    so tests play those through the API where they need them, by methods named `play_…`."""

    kube: Kube
    cluster: Cluster
    namespace: str

    # what a user does

    def apply(self, manifest: Manifest) -> Obj:
        """`kubectl apply`."""
        return self.kube.apply(manifest.in_(self.namespace).body)

    def create(self, manifest: Manifest) -> Obj:
        """`kubectl create`."""
        return self.kube.create(manifest.in_(self.namespace).body)

    def edit(self, kind: str, name: str, patch: Mapping[str, Any]) -> Obj:
        """A merge patch: null removes, lists are replaced."""
        return self.kube.merge(kind, self.namespace, name, patch)

    def edit_spec(self, name: str, **fields: Any) -> Obj:
        """Changes fields of a LlamaModel's spec."""
        return self.edit("LlamaModel", name, {"spec": fields})

    def delete(self, kind: str, name: str) -> None:
        self.kube.delete(kind, self.namespace, name)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """kubectl in this namespace; what it printed."""
        finished = self.cluster.kubectl("--namespace", self.namespace, *arguments, check=check)
        return finished.stdout + ("" if check else finished.stderr)

    # what can be seen

    def find(self, kind: str, name: str) -> Obj | None:
        return self.kube.get(kind, self.namespace, name)

    def get(self, kind: str, name: str) -> Obj:
        """An object that must be there."""
        found = self.find(kind, name)
        assert found is not None, f"{kind} {self.namespace}/{name} does not exist"
        return found

    def versions(self) -> dict[str, str]:
        """The resource version of every model and child: the same again means that nobody wrote."""
        return {
            f"{kind} {found['metadata']['name']}": found["metadata"]["resourceVersion"]
            for kind in ("LlamaModel", "Deployment", "Service")
            for found in self.kube.list(kind, self.namespace)
        }

    # what to wait for

    def wait_for(self, kind: str, name: str, *, within: float = 30.0) -> Obj:
        """Until the object is there."""
        found = eventually(lambda: self.find(kind, name), what=f"{kind} {name} exists", within=within)
        assert found is not None
        return found

    def wait_for_reason(self, name: str, reason: str, *, kind: str = "Ready", within: float = 30.0) -> Obj:
        """Until a condition has this reason for the current spec; the model."""

        def has_it(model: Obj) -> bool:
            found = condition(model, kind)
            current = found.get("observedGeneration") == model["metadata"]["generation"]
            return current and found.get("reason") == reason

        return eventually(
            lambda: self.get("LlamaModel", name), until=has_it, what=f"{kind} of {name} says {reason}", within=within
        )

    def wait_until_settled(self, name: str, *, within: float = 30.0) -> Obj:
        """Until there is a status for the current spec; the model."""
        return eventually(
            lambda: self.get("LlamaModel", name),
            until=lambda model: (
                (model.get("status") or {}).get("observedGeneration") == model["metadata"]["generation"]
            ),
            what=f"the status of {name} speaks of its current spec",
            within=within,
        )

    # what nobody else does here

    def play_bound_claim(self, name: str = CLAIM) -> None:
        """The volume controller: a claim with a volume."""
        self.apply(a_claim(name))
        self.play_claim_phase(name, "Bound")

    def play_claim_phase(self, name: str, phase: str) -> None:
        """The volume controller."""
        self.kube.merge(
            "PersistentVolumeClaim", self.namespace, name, {"status": {"phase": phase}}, subresource="status"
        )

    def play_rollout(self, child: str, *, pods: int = 1) -> None:
        """The controller-manager, the scheduler and the kubelet: all pods of a Deployment run its template."""
        deployment = self.get("Deployment", child)
        for number in range(pods):
            self.play_ready_pod(f"{child}-{number}", template=deployment["spec"]["template"])
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": pods,
            "updatedReplicas": pods,
            "readyReplicas": pods,
            "availableReplicas": pods,
        }
        self.kube.merge("Deployment", self.namespace, child, {"status": status}, subresource="status")

    def play_ready_pod(self, name: str, *, template: Mapping[str, Any]) -> None:
        """The controller-manager, the scheduler and the kubelet: a pod of this template that answers."""
        metadata = {"name": name, "namespace": self.namespace, "labels": template["metadata"]["labels"]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self.kube.create(body)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        container = {
            "name": "llama-server",
            "image": "x",
            "imageID": "x",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": now}]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}
        self.kube.merge("Pod", self.namespace, name, {"status": status}, subresource="status")

    def play_quota(self, name: str, **hard: str) -> None:
        """The quota controller: a ResourceQuota and what is used of it, which admission goes by."""
        limits = {key.replace("_", "/"): value for key, value in hard.items()}
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"hard": limits},
            }
        )
        status = {"hard": limits, "used": dict.fromkeys(limits, "0")}
        self.kube.merge("ResourceQuota", self.namespace, name, {"status": status}, subresource="status")

    def play_garbage_collector(self, owner_uid: str) -> list[str]:
        """The garbage collector: deletes what that owner left; what it deleted."""
        deleted = []
        for kind in ("Deployment", "Service"):
            for child in self.kube.list(kind, self.namespace):
                if any(owner["uid"] == owner_uid for owner in child["metadata"].get("ownerReferences") or []):
                    self.delete(kind, child["metadata"]["name"])
                    deleted.append(f"{kind} {child['metadata']['name']}")
        return deleted

    def play_namespace_controller(self) -> None:
        """The namespace controller: nothing is left; the namespace itself stays, for only it could remove that."""
        for kind in _LEFTOVERS:
            try:
                self.kube.delete_all(kind, self.namespace)
                left = self.kube.list(kind, self.namespace)
            except RefusedByServerError as refused:
                if refused.status == 404:
                    continue  # a test without the CustomResourceDefinition
                raise
            for one in left:
                if one["metadata"].get("finalizers"):
                    self.edit(kind, one["metadata"]["name"], {"metadata": {"finalizers": None}})
