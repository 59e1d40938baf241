"""Service accounts, so that the audit log tells one operator from another."""

from __future__ import annotations

from pathlib import Path

from .cluster import Cluster
from .kube import Kube, RefusedByServerError, path_of

__all__ = ["an_administrator", "kubeconfig_of"]


def an_administrator(name: str, *, kube: Kube, cluster: Cluster) -> Path:
    """Makes a service account that may do anything; a kubeconfig with its token."""
    account = {"name": name, "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", **account}],
    }
    for body in ({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}, binding):
        try:
            kube.create(body)
        except RefusedByServerError as refused:
            if refused.status != 409:
                raise
    return kubeconfig_of(name, namespace="default", kube=kube, cluster=cluster)


def kubeconfig_of(name: str, *, namespace: str, kube: Kube, cluster: Cluster) -> Path:
    """A kubeconfig with a token of a service account that there is."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    answer = kube.post(f"{path_of('ServiceAccount', namespace)}/{name}/token", asked)
    return cluster.kubeconfig_for(name, token=answer["status"]["token"])
