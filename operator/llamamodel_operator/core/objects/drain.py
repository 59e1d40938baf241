"""The sidecar that a pod asks before it stops: it answers when the server has nothing left to do.

Nothing in the engine's image could do that. The kubelet asks it by the container's preStop hook; a sidecar outlives the
containers, so it is there until they have ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.objects.quality import is_guaranteed

__all__ = [
    "DRAIN_CONTAINER",
    "DRAIN_PORT",
    "build_drain",
    "drain_hook",
    "drain_image_of",
    "drain_path",
    "settled_drain",
]

DRAIN_CONTAINER = "drain"
DRAIN_PORT = 8081
_PROGRAM = ("python3", "-P", "-m", "llamamodel_operator.drainer")
_REQUESTS = {"cpu": "5m", "memory": "32Mi"}
_LIMITS = {"cpu": "100m", "memory": "64Mi"}


def settled_drain(*, image: str, running: str, keep: bool, asleep: bool) -> str:
    """Image of the sidecar, empty for none. Settled for a spec: a newer operator rolls no pod.

    Args:
        image: of the operator; empty where it does not know its own.
        running: that pods of the Deployment have; empty where they have none.
        keep: whether a Deployment exists that was made for this very spec.
        asleep: whether it asks for no pods: another image rolls none then.
    """
    if keep and not (asleep and running and image):
        return running
    return image


def drain_path(uid: str) -> str:
    """Path that the hook asks; nobody can tell it from the network, and take a pod out of its Service by it.

    Args:
        uid: of the LlamaModel.
    """
    return f"/drain/{hashlib.sha256(uid.encode()).hexdigest()[:32]}"


def build_drain(
    image: str,
    *,
    path: str,
    security: Mapping[str, Any],
    server: Mapping[str, Any],
    keys_file: str = "",
    mounts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The sidecar: an init container that goes on, and is ready until its pod is to stop.

    Args:
        image: of the operator.
        path: that the hook asks.
        security: its security context.
        server: resources of llama-server's container. Where these make the pod one of guaranteed quality of service,
            it stays one; where a quota asks for a CPU limit, there is one here as well.
        keys_file: of the server's API keys; empty where it asks for none.
        mounts: of that file.
    """
    if is_guaranteed(server):
        resources = {"limits": _LIMITS, "requests": _LIMITS}
    else:
        named = _LIMITS if "cpu" in (server.get("limits") or {}) else {"memory": _LIMITS["memory"]}
        resources = {"limits": named, "requests": _REQUESTS}
    keys = ["--keys-file", keys_file] if keys_file else []
    return {
        "name": DRAIN_CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(_PROGRAM),
        "args": ["--port", str(DRAIN_PORT), "--server-port", str(PORT), "--drain-path", path, *keys],
        "ports": [{"name": "drain", "containerPort": DRAIN_PORT, "protocol": "TCP"}],
        # Asked while the pod stops, too. Patient: the answer takes 1 ms, but may wait for a core where all are busy.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": DRAIN_PORT, "scheme": "HTTP"},
            "periodSeconds": 2,
            "timeoutSeconds": 10,
            "failureThreshold": 2,
            "successThreshold": 1,
        },
        "resources": resources,
        "securityContext": dict(security),
        **({"volumeMounts": [dict(mount) for mount in mounts]} if mounts else {}),
    }


def drain_hook(path: str) -> dict[str, Any]:
    """What the kubelet does before it stops the server."""
    return {"preStop": {"httpGet": {"path": path, "port": DRAIN_PORT, "scheme": "HTTP"}}}


def drain_image_of(deployment: Mapping[str, Any]) -> str:
    """That pods of a live Deployment have; empty where they have none."""
    containers = deployment["spec"]["template"]["spec"].get("initContainers") or []
    found = (one.get("image") or "" for one in containers if one.get("name") == DRAIN_CONTAINER)
    return next(found, "")
