"""The Deployment: pods that run llama-server, restricted, with probes that fit a slow start."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.spec import LlamaModelSpec, Resources
from llamamodel_operator.core.engine.argv import PORT, build_argv
from llamamodel_operator.core.objects.names import child_name, labels, selector

__all__ = ["HOME", "SCHEDULING_ALLOWANCE_SEC", "build_deployment", "model_file"]

SCHEDULING_ALLOWANCE_SEC = 600
"""What a rollout may take besides the start of the container: scheduling, a new node, the pull of the image."""

HOME = "/home/llama"
_UID = 65532
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": _UID,
    "runAsGroup": _UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def build_deployment(model: LlamaModel, *, image: str) -> dict[str, Any]:
    """A Deployment in the namespace of the model.

    With GPUs the rollout replaces pods in place (no surge): it must not need a GPU that nobody has. Without,
    the new pod is up before the old one goes.
    """
    spec, name = model.spec, child_name(model.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": model.namespace,
            "labels": labels(name),
            "ownerReferences": [model.owner_reference()],
        },
        "spec": {
            "replicas": spec.wanted_replicas,
            "revisionHistoryLimit": 2,
            "paused": False,
            "minReadySeconds": 0,
            "progressDeadlineSeconds": spec.settled_startup_timeout_sec + SCHEDULING_ALLOWANCE_SEC,
            "selector": {"matchLabels": selector(name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if spec.gpu else 1, "maxUnavailable": 1 if spec.gpu else 0},
            },
            "template": {
                "metadata": {
                    "labels": {**(spec.pod_labels or {}), **labels(name)},
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": CONTAINER,
                        **(spec.pod_annotations or {}),
                    },
                },
                "spec": _pod(model, image=image),
            },
        },
    }


def model_file(spec: LlamaModelSpec) -> str:
    """Path of the GGUF file inside the container."""
    return f"{_mount_path(spec.model.pvc.claim_name)}/{spec.model.pvc.path}"


def _mount_path(claim_name: str) -> str:
    return f"/models/{claim_name}"


def _pod(model: LlamaModel, *, image: str) -> dict[str, Any]:
    spec = model.spec
    optional = {
        "imagePullSecrets": [secret.to_wire() for secret in spec.image_pull_secrets or ()],
        "nodeSelector": spec.node_selector,
        "tolerations": spec.tolerations,
        "affinity": spec.affinity,
        "topologySpreadConstraints": spec.topology_spread_constraints,
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "serviceAccountName": spec.service_account_name,
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {**_POD_SECURITY, **(spec.pod_security_context or {})},
        "containers": [_container(model, image=image)],
        "volumes": [
            {"name": "model", "persistentVolumeClaim": {"claimName": spec.model.pvc.claim_name}},
            {"name": "home", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
        **{key: value for key, value in optional.items() if value},
    }


def _container(model: LlamaModel, *, image: str) -> dict[str, Any]:
    spec = model.spec
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "args": list(build_argv(model, model_path=model_file(spec))),
        "env": [{"name": "HOME", "value": HOME}, *(e for e in spec.env or [] if e.get("name") != "HOME")],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _startup_probe(spec.settled_startup_timeout_sec),
        # Under load /health waits behind the queue of requests, so these two only ask whether the server accepts
        # connections: a busy server is neither taken out of the Service nor killed.
        "readinessProbe": _tcp_probe(period_seconds=5, failure_threshold=3),
        "livenessProbe": _tcp_probe(period_seconds=10, failure_threshold=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "model", "mountPath": _mount_path(spec.model.pvc.claim_name), "readOnly": True},
            {"name": "home", "mountPath": HOME},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (an emptyDir of the pod)
        ],
    }
    if spec.image_pull_policy:
        container["imagePullPolicy"] = spec.image_pull_policy.value
    if resources := _resources(spec):
        container["resources"] = resources
    return container


def _resources(spec: LlamaModelSpec) -> dict[str, dict[str, str | int]]:
    given = spec.resources or Resources()
    gpus = {spec.gpu.resource_name: str(spec.gpu.count)} if spec.gpu else {}
    parts = {"limits": {**(given.limits or {}), **gpus}, "requests": {**(given.requests or {}), **gpus}}
    return {name: amounts for name, amounts in parts.items() if amounts}


def _startup_probe(timeout_sec: int) -> dict[str, Any]:
    """Asks /health until the model is loaded; period times threshold is exactly the startup timeout."""
    period = next(seconds for seconds in (3, 2, 1) if timeout_sec % seconds == 0)
    return {
        "httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": period,
        "failureThreshold": timeout_sec // period,
        "successThreshold": 1,
    }


def _tcp_probe(*, period_seconds: int, failure_threshold: int) -> dict[str, Any]:
    return {
        "tcpSocket": {"port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 3,
        "failureThreshold": failure_threshold,
        "successThreshold": 1,
    }
