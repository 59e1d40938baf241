"""The Deployment: pods that run llama-server, restricted, with probes that fit a slow start."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.sources import PvcFile
from llamamodel_operator.api.spec import LlamaModelSpec, Resources
from llamamodel_operator.core.claims import Reach
from llamamodel_operator.core.engine.settings import LORA_SCALE_VARIABLE, PORT
from llamamodel_operator.core.objects.check import Check, build_check
from llamamodel_operator.core.objects.drain import build_drain, drain_hook, drain_path
from llamamodel_operator.core.objects.names import child_metadata, child_name, labels, selector
from llamamodel_operator.core.objects.placement import affinity, topology_spread
from llamamodel_operator.core.pod_keys import KEYS, KEYS_FILE, KEYS_VOLUME

__all__ = [
    "CONTAINER_SECURITY",
    "HOME",
    "POD_SECURITY",
    "RESERVED_VARIABLES",
    "SCHEDULING_ALLOWANCE_SEC",
    "TEXTS",
    "Server",
    "build_deployment",
    "claim_volumes",
    "file_path",
    "has_keys",
    "mount_path",
]

SCHEDULING_ALLOWANCE_SEC = 600
"""What a rollout may take besides the start of the container: scheduling, a new node, the pull of the image."""

HOME = "/home/llama"
TEXTS = "/etc/llamamodel"
"""Where the ConfigMap of texts is mounted."""
RESERVED_VARIABLES = "LLAMAMODEL_"
"""What the names of the operator's own environment variables begin with."""
_SHORT_GRACE_SEC = 30
"""Kubernetes' own; also of a server that a probe has given up: nothing that it may be busy with is waited for."""
_UID = 65532
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": _UID,
    "runAsGroup": _UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """What the container runs.

    Attributes:
        image: of llama-server.
        arguments: of its command line.
        texts: name of the ConfigMap with templates and grammars; None where there are none.
        scales: name of the ConfigMap with the scales of the adapters; None where there are none.
        prompt_cache_mib: host memory that the server takes for prompts that may come again.
        check: of the files, before the server starts; None where there is none.
        drain: image of the sidecar that tells when the server may stop; empty where there is none.
        reach: of the volumes.
    """

    image: str
    arguments: tuple[str, ...]
    texts: str | None = None
    scales: str | None = None
    prompt_cache_mib: int = 0
    check: Check | None = None
    drain: str = ""
    reach: Reach = Reach.ANYWHERE


def build_deployment(model: LlamaModel, *, server: Server) -> dict[str, Any]:
    """A Deployment in the namespace of the model.

    With GPUs the rollout replaces pods in place (no surge): it must not need a GPU that nobody has. Nor may it need a
    second pod where the volume ties pods to one node, or to one pod. Else the new pod is up before the old one goes.
    """
    spec, name = model.spec, child_name(model.name)
    in_place = spec.gpu is not None or server.reach is not Reach.ANYWHERE
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(model),
        "spec": {
            "replicas": spec.wanted_replicas,
            "revisionHistoryLimit": 2,
            "paused": False,
            "minReadySeconds": 0,
            "progressDeadlineSeconds": spec.settled_startup_timeout_sec + SCHEDULING_ALLOWANCE_SEC,
            "selector": {"matchLabels": selector(name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if in_place else 1, "maxUnavailable": 1 if in_place else 0},
            },
            "template": {
                "metadata": {
                    "labels": {**(spec.pod_labels or {}), **labels(name)},
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": CONTAINER,
                        **(spec.pod_annotations or {}),
                    },
                },
                "spec": _pod(model, server),
            },
        },
    }


def file_path(file: PvcFile) -> str:
    """Path of a file on a volume, inside the container."""
    return f"{mount_path(file.claim_name)}/{file.path}"


def mount_path(claim_name: str) -> str:
    """Where a claim's volume is mounted."""
    return f"/models/{claim_name}"


def claim_volumes(spec: LlamaModelSpec) -> dict[str, str]:
    """The claims that are mounted, each with the name of its volume."""
    first, *others = spec.claims
    return {first: "model", **{claim: f"claim-{hashlib.sha256(claim.encode()).hexdigest()[:8]}" for claim in others}}


def _pod(model: LlamaModel, server: Server) -> dict[str, Any]:
    spec, name = model.spec, child_name(model.name)
    optional = {
        "imagePullSecrets": [secret.to_wire() for secret in spec.image_pull_secrets or ()],
        "nodeSelector": spec.node_selector,
        "tolerations": spec.tolerations,
        "affinity": affinity(spec, name=name, reach=server.reach),
        "topologySpreadConstraints": topology_spread(spec, name=name, reach=server.reach),
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "serviceAccountName": spec.service_account_name,
    }
    container = _container(model, server)
    resources = container.get("resources") or {}
    optional["initContainers"] = [
        *(
            [
                build_check(
                    server.check,
                    mounts=[*_claim_mounts(spec), *_keys_mounts(spec)],
                    security=CONTAINER_SECURITY,
                    server=resources,
                )
            ]
            if server.check
            else []
        ),
        *([_drain(model, server, resources)] if server.drain else []),
    ]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace_period_sec(spec, server),
        # Else the server would be process 1, which passes over SIGTERM until it has loaded its model and handles it: it
        # would be waited for as long as a request may take.
        **({"shareProcessNamespace": True} if server.drain else {}),
        "securityContext": {**POD_SECURITY, **(spec.pod_security_context or {})},
        "containers": [container],
        "volumes": [
            *(
                {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
                for claim, volume in claim_volumes(spec).items()
            ),
            *([{"name": "texts", "configMap": {"name": server.texts}}] if server.texts else []),
            *_keys_volumes(spec),
            {"name": "home", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
        **{key: value for key, value in optional.items() if value},
    }


def _drain(model: LlamaModel, server: Server, resources: Mapping[str, Any]) -> dict[str, Any]:
    return build_drain(
        server.drain,
        path=drain_path(model.uid),
        security=CONTAINER_SECURITY,
        server=resources,
        keys_file=KEYS_FILE if model.spec.api_key_secret_ref else "",
        mounts=_keys_mounts(model.spec),
    )


def _grace_period_sec(spec: LlamaModelSpec, server: Server) -> int:
    """Long only where somebody ends it as soon as nothing is left to do."""
    given = spec.termination_grace_period_seconds
    if given is None and not server.drain:
        return _SHORT_GRACE_SEC
    # 0 would have the API server forget a pod before its node has stopped it, and its GPU given to the next.
    return max(1, spec.settled_grace_period_sec)


def _container(model: LlamaModel, server: Server) -> dict[str, Any]:
    spec = model.spec
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": server.image,
        "args": list(server.arguments),
        "env": list(_environment(spec, server)),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _startup_probe(spec.settled_startup_timeout_sec),
        # Under load /health waits behind the queue of requests, so these two only ask whether the server accepts
        # connections: a busy server is neither taken out of the Service nor killed.
        "readinessProbe": _tcp_probe(period_seconds=5, failure_threshold=3),
        "livenessProbe": {
            **_tcp_probe(period_seconds=10, failure_threshold=6),
            "terminationGracePeriodSeconds": _SHORT_GRACE_SEC,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            *_claim_mounts(spec),
            *([{"name": "texts", "mountPath": TEXTS, "readOnly": True}] if server.texts else []),
            *_keys_mounts(spec),
            {"name": "home", "mountPath": HOME},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (an emptyDir of the pod)
        ],
    }
    if server.drain and spec.settled_grace_period_sec:
        container["lifecycle"] = drain_hook(drain_path(model.uid))
    if spec.image_pull_policy:
        container["imagePullPolicy"] = spec.image_pull_policy.value
    if resources := _resources(spec, prompt_cache_mib=server.prompt_cache_mib):
        container["resources"] = resources
    return container


def _claim_mounts(spec: LlamaModelSpec) -> list[dict[str, Any]]:
    return [
        {"name": volume, "mountPath": mount_path(claim), "readOnly": True}
        for claim, volume in claim_volumes(spec).items()
    ]


def _keys_volumes(spec: LlamaModelSpec) -> list[dict[str, Any]]:
    """The one entry of the Secret: who reads the pod's files learns nothing else that may be in it."""
    ref = spec.api_key_secret_ref
    if ref is None:
        return []
    items = [{"key": ref.key, "path": KEYS_FILE.removeprefix(f"{KEYS}/")}]
    return [{"name": KEYS_VOLUME, "secret": {"secretName": ref.name, "items": items, "optional": False}}]


def _keys_mounts(spec: LlamaModelSpec) -> list[dict[str, Any]]:
    return [{"name": KEYS_VOLUME, "mountPath": KEYS, "readOnly": True}] if spec.api_key_secret_ref else []


def has_keys(deployment: Mapping[str, Any]) -> bool:
    """Whether the pods of a Deployment have a file of API keys, whatever the spec says by now."""
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or []
    return any(volume.get("name") == KEYS_VOLUME for volume in volumes)


def _environment(spec: LlamaModelSpec, server: Server) -> Iterator[dict[str, Any]]:
    own = {"HOME": HOME}
    if spec.gpu is None:
        # OpenMP's threads spin while they wait. Where others need the cores too, that makes answers 30 times slower.
        own["OMP_WAIT_POLICY"] = "PASSIVE"
    given = [entry for entry in spec.env or [] if entry.get("name") != "HOME"]
    names = {entry.get("name") for entry in given}
    yield from ({"name": name, "value": value} for name, value in own.items() if name not in names)
    if server.scales:
        for index, adapter in enumerate(spec.lora_adapters or ()):
            name = LORA_SCALE_VARIABLE.format(index=index)
            yield {"name": name, "valueFrom": {"configMapKeyRef": {"name": server.scales, "key": adapter.name}}}
    yield from given


def _resources(spec: LlamaModelSpec, *, prompt_cache_mib: int) -> dict[str, dict[str, str | int]]:
    """With neither request nor limit for memory, what the prompt cache takes is asked for at least."""
    given = spec.resources or Resources()
    gpus = {spec.gpu.resource_name: str(spec.gpu.count)} if spec.gpu else {}
    limits, requests = {**(given.limits or {}), **gpus}, {**(given.requests or {}), **gpus}
    if "memory" not in limits and "memory" not in requests and prompt_cache_mib:
        requests["memory"] = f"{prompt_cache_mib}Mi"
    return {name: amounts for name, amounts in {"limits": limits, "requests": requests}.items() if amounts}


def _startup_probe(timeout_sec: int) -> dict[str, Any]:
    """Asks /health until the model is loaded; period times threshold is exactly the startup timeout."""
    period = next(seconds for seconds in (3, 2, 1) if timeout_sec % seconds == 0)
    return {
        "httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": period,
        "failureThreshold": timeout_sec // period,
        "successThreshold": 1,
        "terminationGracePeriodSeconds": _SHORT_GRACE_SEC,
    }


def _tcp_probe(*, period_seconds: int, failure_threshold: int) -> dict[str, Any]:
    return {
        "tcpSocket": {"port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 3,
        "failureThreshold": failure_threshold,
        "successThreshold": 1,
    }
