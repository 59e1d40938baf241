"""What Kubernetes says of pods that do not come up, as our reasons: refusals, nodes, images, events.

The texts are those of Kubernetes 1.36 and containerd 2: kube-apiserver's admission plugins, kube-scheduler's plugins
(pkg/scheduler/framework/plugins), the kubelet, and the registry's answers as the kubelet repeats them. Nobody promises
them: what is not recognised keeps its general reason, and the message has Kubernetes' own words in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.pod_keys import KEYS_VOLUME

__all__ = [
    "IMAGE_REASONS",
    "Trouble",
    "image_trouble",
    "is_mere_back_off",
    "refusal_reason",
    "scheduling_advice",
    "trouble_of_events",
]

IMAGE_REASONS = frozenset({Reason.IMAGE_NOT_FOUND, Reason.IMAGE_PULL_DENIED, Reason.IMAGE_PULL_FAILED})
_LONGEST_MESSAGE = 1000
"""Characters of somebody else's text that a message repeats."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a pod does not get further, and what to do."""

    reason: Reason
    message: str
    remedy: str


# Refusals

_REFUSALS: Sequence[tuple[str, Reason]] = (
    (r"exceeded quota|failed quota", Reason.QUOTA_EXCEEDED),
    (r"violates PodSecurity|unable to validate against any security context constraint", Reason.POD_SECURITY_VIOLATION),
    (
        r"admission webhook \S+ denied|denied the request|denied request:|is forbidden: (maximum|minimum) ",
        Reason.ADMISSION_DENIED,
    ),
)


def refusal_reason(message: str, *, otherwise: Reason) -> Reason:
    """Why the API server does not take an object."""
    return next((reason for pattern, reason in _REFUSALS if re.search(pattern, message)), otherwise)


# Nodes

_SHORTAGES: Sequence[tuple[str, str]] = (
    (r"Insufficient (?P<what>\S+/\S+?)[.,;]?(?=\s|$)", "free or add a node with {what}, or lower spec.gpu.count"),
    (r"Insufficient memory", "lower spec.resources.requests.memory, or add a node with more memory"),
    (r"Insufficient cpu", "lower spec.resources.requests.cpu, or add a node with more CPUs"),
    (r"Insufficient ephemeral-storage", "free disk space on a node, or lower spec.resources.requests"),
    (r"Too many pods", "add a node: the nodes have as many pods as they may"),
    (r"untolerated taint", "tolerate the taint in spec.tolerations, or remove it from a node"),
    (r"were unschedulable", "uncordon a node"),
    (r"didn't match Pod's node affinity/selector", "correct spec.nodeSelector or spec.affinity, or label a node"),
    (r"pod (anti-)?affinity", "correct spec.affinity"),
    (r"topology spread", "correct spec.topologySpreadConstraints"),
    (r"volume node affinity conflict", "the claim's volume can be used on other nodes alone: make room there"),
    (r"ReadWriteOncePod", "another pod has the claim, and one at a time may: stop that one, or use ReadWriteMany"),
    (r"unbound immediate PersistentVolumeClaims", "see what the claim waits for: `kubectl describe pvc`"),
    (r"max volume count", "the nodes have as many volumes as they may: add a node"),
)
"""What the scheduler's plugins say, and what to do about it."""


def scheduling_advice(message: str) -> tuple[str, ...]:
    """What would let the pod be placed, in the order of the table: resources first."""
    message = message.partition("preemption:")[0]
    found = ((re.search(pattern, message), advice) for pattern, advice in _SHORTAGES)
    return tuple(advice.format(**said.groupdict()) for said, advice in found if said)


# Images

_IMAGES: Sequence[tuple[str, Reason]] = (
    (r"\b401\b|\b403\b|denied|[Uu]nauthorized|no basic auth credentials|authentication required|failed to authorize",
     Reason.IMAGE_PULL_DENIED),
    (r"not found|manifest unknown|name unknown|InvalidImageName|ErrImageNeverPull|couldn't parse image",
     Reason.IMAGE_NOT_FOUND),
)  # fmt: skip
"""A registry that hides what one may not see says "denied" of what is not there as well."""
_IMAGE_REMEDIES = {
    Reason.IMAGE_NOT_FOUND: "correct spec.image, or push the image",
    Reason.IMAGE_PULL_DENIED: "name a secret for this registry in spec.imagePullSecrets, and check spec.image: many"
    " registries answer the same where there is no such image",
    Reason.IMAGE_PULL_FAILED: "check spec.image and spec.imagePullSecrets",
}


def image_trouble(waiting_reason: str, waiting_message: str) -> Trouble:
    """Why an image cannot be pulled; the message is the kubelet's."""
    said = f"{waiting_reason} {waiting_message}"
    reason = next((r for pattern, r in _IMAGES if re.search(pattern, said)), Reason.IMAGE_PULL_FAILED)
    return Trouble(reason=reason, message=waiting_message or waiting_reason, remedy=_IMAGE_REMEDIES[reason])


def is_mere_back_off(waiting_message: str) -> bool:
    """Whether a kubelet before 1.31 says that it waits, and not why."""
    return re.fullmatch(r'Back-off pulling image "[^"]*"', waiting_message) is not None


# Events

_EVENTS: Sequence[tuple[str, str, Reason, str]] = (
    (
        "FailedAttachVolume",
        "Multi-Attach error",
        Reason.MULTI_ATTACH,
        "the volume is attached to another node: stop the pod there, keep all pods on one node (spec.nodeSelector),"
        " or use"
        " a ReadWriteMany or ReadOnlyMany claim",
    ),
    ("FailedAttachVolume", "", Reason.VOLUME_MOUNT_FAILED, "see `kubectl describe pvc` and the storage driver's logs"),
    (
        "FailedMount",
        f'for volume "{KEYS_VOLUME}" : (secret ".*" not found|references non-existent secret key)',
        Reason.API_KEYS_NOT_FOUND,
        "create the Secret with this entry, or correct spec.apiKeySecretRef",
    ),
    (
        "FailedMount",
        "MountVolume|MapVolume|NodeStage",
        Reason.VOLUME_MOUNT_FAILED,
        "see `kubectl describe pvc` and the storage driver's logs on the node",
    ),
    (
        "FailedMount",
        "",
        Reason.VOLUME_MOUNT_FAILED,
        "see `kubectl describe pvc` and the storage driver's logs on the node",
    ),
    (
        "FailedCreatePodSandBox",
        "",
        Reason.CONTAINER_CONFIG_ERROR,
        "the node cannot make the pod's sandbox: see its network plugin, and spec.runtimeClassName",
    ),
)
"""Reason and text of an event of a pod, what it means, and what to do; what says more comes first."""


def trouble_of_events(events: Iterable[Mapping[str, Any]]) -> Trouble | None:
    """What a pod's events (core/v1) say of why none of its containers was started; of several the newest of the first
    kind."""
    known = list(events)
    for kind, pattern, reason, remedy in _EVENTS:
        said = [e for e in known if e.get("reason") == kind and re.search(pattern, e.get("message") or "")]
        if said:
            newest = max(said, key=_time)
            message = " ".join((newest.get("message") or kind).split())[:_LONGEST_MESSAGE]
            return Trouble(reason=reason, message=message, remedy=remedy)
    return None


def _time(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
