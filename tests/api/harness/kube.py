"""A plain client of the API server, so that the tests do not see the cluster through the operator's eyes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from .cluster import Cluster

__all__ = ["Kube", "Obj", "RefusedByServerError", "path_of"]

Obj: TypeAlias = dict[str, Any]

_PATHS = {
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "DeviceClass": "/apis/resource.k8s.io/v1/deviceclasses",
    "Event": "/apis/events.k8s.io/v1/namespaces/{}/events",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "LlamaModel": "/apis/llamamodel.dev/v1alpha1/namespaces/{}/llamamodels",
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "ResourceSlice": "/apis/resource.k8s.io/v1/resourceslices",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}


class RefusedByServerError(Exception):
    """The API server said no; `str()` is its own message."""

    def __init__(self, *, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def path_of(kind: str, namespace: str = "") -> str:
    """The URL path of a collection."""
    return _PATHS[kind].format(namespace)


@dataclass(frozen=True)
class Kube:
    """Requests as the administrator, each answered or refused."""

    http: httpx.Client

    @classmethod
    def connect(cls, cluster: Cluster) -> Kube:
        """A client with the administrator's certificate."""
        tls = ssl.create_default_context(cadata=cluster.authority)
        tls.load_cert_chain(cluster.client_pair)
        return cls(httpx.Client(base_url=cluster.server, verify=tls, timeout=60, headers={"User-Agent": "tests"}))

    def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The object, or None where it is not."""
        try:
            return self._send("GET", f"{path_of(kind, namespace)}/{name}")
        except RefusedByServerError as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "") -> list[Obj]:
        """The objects of a namespace."""
        items: list[Obj] = self._send("GET", path_of(kind, namespace))["items"]
        return items

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False, strict: bool = True) -> Obj:
        """As `kubectl create` does it: unknown fields are refused where strict."""
        metadata = body["metadata"]
        params = {"fieldValidation": "Strict" if strict else "Ignore"} | ({"dryRun": "All"} if dry_run else {})
        return self._send("POST", path_of(body["kind"], metadata.get("namespace", "")), json=body, params=params)

    def apply(self, body: Mapping[str, Any], *, manager: str = "tests") -> Obj:
        """Server-side apply, by somebody else than the operator."""
        metadata = body["metadata"]
        path = f"{path_of(body['kind'], metadata.get('namespace', ''))}/{metadata['name']}"
        params = {"fieldManager": manager, "force": "true"}
        return self._send("PATCH", path, json=body, params=params, media="application/apply-patch+yaml")

    def merge(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any], *, subresource: str = "") -> Obj:
        """A merge patch: null removes, lists are replaced."""
        path = "/".join(part for part in (path_of(kind, namespace), name, subresource) if part)
        return self._send("PATCH", path, json=patch, media="application/merge-patch+json")

    def strategic(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Obj:
        """A strategic merge patch, what `kubectl patch` and `kubectl edit` send: lists are merged by their keys."""
        path = f"{path_of(kind, namespace)}/{name}"
        return self._send("PATCH", path, json=patch, media="application/strategic-merge-patch+json")

    def patch(self, kind: str, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]) -> Obj:
        """A JSON patch."""
        path = f"{path_of(kind, namespace)}/{name}"
        return self._send("PATCH", path, json=list(operations), media="application/json-patch+json")

    def post(self, path: str, body: Mapping[str, Any]) -> Obj:
        """A POST to any path, such as a subresource."""
        return self._send("POST", path, json=body)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Deletes an object; one that is gone is no error."""
        try:
            self._send("DELETE", f"{path_of(kind, namespace)}/{name}", params={"propagationPolicy": "Background"})
        except RefusedByServerError as refused:
            if refused.status != 404:
                raise

    def delete_all(self, kind: str, namespace: str) -> None:
        """Deletes all objects of a namespace, at once."""
        self._send("DELETE", path_of(kind, namespace), params={"gracePeriodSeconds": "0"})

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
        media: str = "application/json",
    ) -> Obj:
        headers = {"Content-Type": media} if json is not None else None
        response = self.http.request(method, path, json=json, params=params, headers=headers)
        answer: Obj = response.json()
        if response.status_code >= 400:
            raise RefusedByServerError(status=response.status_code, message=answer.get("message", ""))
        return answer
