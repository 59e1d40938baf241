"""The Job that inspects files: the operator's image beside the volume, without a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from llamamodel_operator.api.labels import INSTANCE_LABEL, MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import files_of, inspection_key
from llamamodel_operator.core.objects.check import PROGRAM, files_argument
from llamamodel_operator.core.objects.deployment import CONTAINER_SECURITY, POD_SECURITY, claim_volumes, mount_path
from llamamodel_operator.core.objects.names import child_metadata, child_name

__all__ = ["CHECKSUM_ANNOTATION", "DEADLINE_SEC", "INSPECTION_LABEL", "INSPECT_CONTAINER", "build_job", "job_name"]

INSPECT_CONTAINER = "inspect"
INSPECTION_LABEL = "llamamodel.dev/inspection-of"
"""On the Job's pods, in place of the label by which the Service finds the model's."""
CHECKSUM_ANNOTATION = "llamamodel.dev/checksum"
"""On Jobs that read whole files: these take their time."""
DEADLINE_SEC = 300
_CHECKSUM_DEADLINE_SEC = 4 * 3600
"""A terabyte at 80 MB/s."""
_KEPT_SEC = 2 * 3600
"""A Job that has ended is the memory of a bad verdict: it is replaced long before it goes."""
_LONGEST_NAME = 63
_COMPONENT = "llamamodel-inspection"
_NO_MESH_LABELS = {
    "sidecar.istio.io/inject": "false",
    "istio.io/dataplane-mode": "none",
    "kuma.io/sidecar-injection": "disabled",
}
_NO_MESH_ANNOTATIONS = {
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
    "kuma.io/sidecar-injection": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
    "openservicemesh.io/sidecar-injection": "disabled",
}
"""A sidecar would outlive the inspection, and the files need no network."""


def job_name(model: LlamaModel, key: str) -> str:
    """`NAME-inspect-KEY`; a long name is cut, and a hash of it keeps it unique."""
    name, suffix = child_name(model.name), f"-inspect-{key}"
    if len(name) + len(suffix) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST_NAME - len(suffix) - 9].rstrip('-')}-{digest}"
    return name + suffix


def build_job(
    model: LlamaModel, *, asked: str, image: str, node: str | None, annotations: Mapping[str, str]
) -> dict[str, Any]:
    """A Job in the namespace of the model.

    Args:
        model: whose files are read.
        asked: value of the annotation that asks for an inspection.
        image: of the operator.
        node: where it must run, since a volume that one node alone may mount is in use there.
        annotations: what the operator is to know of earlier tries.
    """
    spec, name, files = model.spec, child_name(model.name), files_of(model.spec)
    key = inspection_key(files, asked=asked)
    claims = {file.claim: mount_path(file.claim) for file in files}
    checksum = any(file.sha256 for file in files)
    volumes = {claim: volume for claim, volume in claim_volumes(spec).items() if claim in claims}
    marks = {NAME_LABEL: _COMPONENT, INSTANCE_LABEL: name, MANAGED_BY_LABEL: MANAGER}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {**POD_SECURITY, **(spec.pod_security_context or {})},
        "containers": [
            {
                "name": INSPECT_CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(PROGRAM),
                "args": ["--files", files_argument(files, mount=claims)],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "64Mi"},
                    "limits": {"cpu": "1", "memory": "256Mi"},
                },
                "securityContext": CONTAINER_SECURITY,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": volume, "mountPath": claims[claim], "readOnly": True} for claim, volume in volumes.items()
                ],
            }
        ],
        "volumes": [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}} for claim, volume in volumes.items()
        ],
    }
    optional = {
        "imagePullSecrets": [secret.to_wire() for secret in spec.image_pull_secrets or ()],
        "tolerations": spec.tolerations,
        "priorityClassName": spec.priority_class_name,
        "serviceAccountName": spec.service_account_name,
        "affinity": _only_on(node) if node else None,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **child_metadata(model, name=job_name(model, key), also={NAME_LABEL: _COMPONENT}),
            "annotations": {**annotations, **({CHECKSUM_ANNOTATION: "true"} if checksum else {})},
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": _CHECKSUM_DEADLINE_SEC if checksum else DEADLINE_SEC,
            "ttlSecondsAfterFinished": _KEPT_SEC,
            "template": {
                "metadata": {
                    "labels": {**marks, INSPECTION_LABEL: name, **_NO_MESH_LABELS},
                    "annotations": _NO_MESH_ANNOTATIONS,
                },
                "spec": {**pod, **{field: value for field, value in optional.items() if value}},
            },
        },
    }


def _only_on(node: str) -> dict[str, Any]:
    """By the scheduler, unlike nodeName, so that a full node is told."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
