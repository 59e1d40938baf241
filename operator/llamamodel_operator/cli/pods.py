"""What is shown of a pod, from its raw form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamamodel_operator.api.labels import CONTAINER

__all__ = ["container_of", "has_begun", "image_of", "is_ready", "is_running", "state_of"]


def container_of(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the server's container; empty where there is none yet."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Mapping[str, Any] = next((status for status in statuses if status.get("name") == CONTAINER), {})
    return found


def is_running(pod: Mapping[str, Any]) -> bool:
    """Whether a server is there that might answer."""
    return "running" in (container_of(pod).get("state") or {})


def has_begun(pod: Mapping[str, Any]) -> bool:
    """Whether a container of it runs or has run."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any({"running", "terminated"} & (status.get("state") or {}).keys() for status in statuses)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """As the kubelet says."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def state_of(pod: Mapping[str, Any]) -> str:
    """In a word or two, as kubectl's STATUS."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if reason and reason not in ("PodInitializing", "Completed"):
            return str(reason)
    return str(status.get("phase") or "Unknown")


def image_of(pod: Mapping[str, Any]) -> str:
    """Of the server."""
    containers = (pod.get("spec") or {}).get("containers") or []
    return str(next((container.get("image") for container in containers if container.get("name") == CONTAINER), "-"))
