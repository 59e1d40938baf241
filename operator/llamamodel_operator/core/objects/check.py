"""The init container that looks at the files again when a pod starts: nobody outside sees that a file was replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.core.engine.settings import escape_references
from llamamodel_operator.core.inspection import FileToInspect, Inspection, files_digest
from llamamodel_operator.core.objects.quality import is_guaranteed

__all__ = ["CHECK_CONTAINER", "PROGRAM", "Check", "build_check", "check_of", "files_argument", "settled_check"]

CHECK_CONTAINER = "check-files"
PROGRAM = ("python3", "-P", "-m", "llamamodel_operator.inspector")
"""In the operator's image. Not its entry point: that one imports what a cluster's client needs."""
_EXPECT = "--expect"
_REQUESTS = {"cpu": "10m", "memory": "64Mi"}
_MEMORY_LIMIT = "256Mi"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the init container runs.

    Attributes:
        image: of the operator.
        arguments: of its program, as the kubelet wants them.
        digest: of sizes and headers that the files must have; empty where they only must be valid.
    """

    image: str
    arguments: tuple[str, ...]
    digest: str = ""


def settled_check(
    inspection: Inspection | None,
    *,
    files: Sequence[FileToInspect],
    mount: Mapping[str, str],
    image: str,
    keys_file: str = "",
    running: Check | None,
    keep: bool,
    asleep: bool,
) -> Check | None:
    """The check that pods begin with, or None.

    It is settled for a spec and the files' digest: facts that come late, and a newer operator, roll no pod. Where the
    Deployment asks for none, it is the newer operator's.

    Args:
        inspection: of the files.
        files: of the spec.
        mount: path of each claim's volume in the container.
        image: of the operator; empty where inspections are off.
        keys_file: of API keys; empty where there is none.
        running: what the pods of the Deployment begin with.
        keep: whether a Deployment exists that was made for this very spec.
        asleep: whether it asks for no pods: another check rolls none then.
    """
    known = inspection is not None and inspection.done
    other_files = known and running is not None and running.digest not in ("", _digest(inspection))
    if keep and (running is None or not (other_files or (known and asleep and image))):
        return running
    if inspection is None or not image:
        return None
    keys = ("--keys-file", keys_file) if keys_file else ()
    if inspection.done:
        models = [
            model
            for model in (inspection.model, *inspection.adapters, inspection.projector, inspection.draft)
            if model is not None
        ]
        digests = [files_digest([model]) for model in models]
        words = (_EXPECT, inspection.digest, "--files", files_argument(files, mount=mount, digests=digests), *keys)
        return Check(image=image, arguments=words, digest=inspection.digest)
    if inspection.checks_at_start:
        return Check(image=image, arguments=("--quiet", "--files", files_argument(files, mount=mount), *keys))
    return None


def _digest(inspection: Inspection | None) -> str:
    return "" if inspection is None else inspection.digest


def files_argument(
    files: Sequence[FileToInspect], *, mount: Mapping[str, str], digests: Sequence[str] | None = None
) -> str:
    """Which files, where, as one word of JSON. With digests it is for a check, which leaves checksums out: they need
    the whole file."""
    said: list[dict[str, str]] = []
    for index, file in enumerate(files):
        entry = {"role": file.role.value, "field": file.field, "inside": mount[file.claim], "path": file.path}
        if digests is not None:
            entry["digest"] = digests[index]
        elif file.sha256:
            entry["sha256"] = file.sha256
        said.append(entry)
    return escape_references(json.dumps(said, ensure_ascii=False, separators=(",", ":")))


def build_check(
    check: Check, *, mounts: Sequence[Mapping[str, Any]], security: Mapping[str, Any], server: Mapping[str, Any]
) -> dict[str, Any]:
    """The init container.

    Args:
        check: what it runs.
        mounts: of the claims, and of the keys.
        security: its security context.
        server: resources of llama-server's container. Where these make the pod one of guaranteed quality of service,
            it stays one; where a CPU limit is asked for by a quota, there is one here as well.
    """
    limits = server.get("limits") or {}
    both = {name: limits[name] for name in ("cpu", "memory") if name in limits}
    resources = (
        {"limits": both, "requests": both}
        if is_guaranteed(server)
        else {
            "limits": {**{k: v for k, v in both.items() if k == "cpu"}, "memory": _MEMORY_LIMIT},
            "requests": _REQUESTS,
        }
    )
    return {
        "name": CHECK_CONTAINER,
        "image": check.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(PROGRAM),
        "args": list(check.arguments),
        "resources": resources,
        "securityContext": dict(security),
        "terminationMessagePolicy": "File",
        "volumeMounts": [dict(mount) for mount in mounts],
    }


def check_of(deployment: Mapping[str, Any]) -> Check | None:
    """What the pods of a live Deployment begin with; None where that is nothing of ours."""
    containers = deployment["spec"]["template"]["spec"].get("initContainers") or []
    own = next((container for container in containers if container.get("name") == CHECK_CONTAINER), None)
    if own is None:
        return None
    words = tuple(str(word) for word in own.get("args") or ())
    digest = words[words.index(_EXPECT) + 1] if _EXPECT in words[:-1] else ""
    return Check(image=own.get("image") or "", arguments=words, digest=digest)
