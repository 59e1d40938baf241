"""`bench --compare`: a second LlamaModel with some fields changed, beside the first for as long as it is measured."""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import yaml

from llamamodel_operator.api.base import API_VERSION, GROUP, KIND
from llamamodel_operator.api.crd import custom_resource_definition
from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import MODELS, ApiError

__all__ = ["BENCH_LABEL", "BadChangeError", "NotServedError", "a_copy", "changed_copy", "gpus_of", "wait_until_ready"]

BENCH_LABEL = f"{GROUP}/bench"
"""On such a copy: the child name of the LlamaModel that it is a copy of."""

_POLL_SEC = 1.0
_PATIENCE_SEC = 30.0
"""How long a copy may lack a node, a claim or a quota: somebody may be about to make room."""
_LASTING = ("Unschedulable", "ClaimNotFound", "ClaimPending", "QuotaExceeded", "PodCreationFailed", "ImagePullFailed")
_NOT_COMPARED = ("replicas", "suspend")


class BadChangeError(Exception):
    """A change that cannot be made; the message says why, and what to write instead."""


class NotServedError(Exception):
    """A LlamaModel that is not ready; the message says why."""


def changed_copy(model: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The manifest of a copy with one replica, in which fields (`engine.batchSize=512`) are changed.

    It runs the image that the first one runs, unless that is changed. Raises BadChangeError.
    """
    metadata, spec = model["metadata"], copy.deepcopy(dict(model["spec"]))
    image = ((model.get("status") or {}).get("engine") or {}).get("image")
    if image and not spec.get("image"):
        spec["image"] = image
    for change in changes:
        path, equals, value = change.partition("=")
        path = path.strip().removeprefix("spec.")
        if not equals or not all(path.split(".")):
            raise BadChangeError(f"{change!r} is no change: write FIELD=VALUE, such as engine.flashAttention=off")
        if path in _NOT_COMPARED:
            raise BadChangeError(f"{path} cannot be compared: the copy has one replica, and is measured beside one")
        _set(spec, path.split("."), value.strip())
    name = f"{metadata['name']}-bench-{secrets.token_hex(2)}"
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {BENCH_LABEL: child_name(metadata["name"])},
            "ownerReferences": [owner],
        },
        "spec": {**spec, "replicas": 1, "suspend": False},
    }


def _set(spec: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Where the text is empty the field is left out."""
    schema: Mapping[str, Any] = _spec_schema()
    inside = spec
    for depth, field in enumerate(path):
        schema = (schema.get("properties") or {}).get(field) or {}
        if depth < len(path) - 1:
            inside = inside.setdefault(field, {})
            if not isinstance(inside, dict):
                raise BadChangeError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} has no fields")
    if text:
        inside[path[-1]] = _typed(text, schema, path=".".join(path))
    else:
        inside.pop(path[-1], None)


def _typed(text: str, schema: Mapping[str, Any], *, path: str) -> Any:
    """The text as a value of the field's type; one of another type is left to the checks of the whole."""
    choices = schema.get("enum") or ()
    switch = {"on": "enabled", "true": "enabled", "off": "disabled", "false": "disabled"}.get(text.lower())
    if schema.get("type") == "string":
        return switch if switch in choices and text not in choices else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadChangeError(
            f"{path}: {text!r} is no value: write it as in a manifest, such as 4, true or [a, b]"
        ) from None


def _spec_schema() -> Mapping[str, Any]:
    version = custom_resource_definition()["spec"]["versions"][0]
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def gpus_of(manifest: Mapping[str, Any]) -> str:
    """What a pod of it takes, in words."""
    gpu = manifest["spec"].get("gpu")
    if not gpu:
        return "no GPU"
    count = gpu.get("count", 1)
    return f"{count} GPU{'' if count == 1 else 's'} ({gpu.get('resourceName') or 'nvidia.com/gpu'})"


@asynccontextmanager
async def a_copy(
    cluster: Cluster, manifest: Mapping[str, Any], *, tell: Callable[[str], None]
) -> AsyncIterator[dict[str, Any]]:
    """Creates it, and deletes it in the end, however that comes; tells where it could not. Raises ApiError."""
    creating = asyncio.ensure_future(cluster.client.create(MODELS, manifest))
    try:
        yield await asyncio.shield(creating)
    finally:
        made = await creating  # also where the wait for it was interrupted
        metadata = made["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        try:
            await cluster.client.delete(MODELS, namespace=namespace, name=name, uid=metadata["uid"])
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            tell(f"{name} is still there ({error}): kubectl delete llamamodel {name} --namespace {namespace}")


async def wait_until_ready(
    cluster: Cluster, name: str, *, timeout_sec: float, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The LlamaModel once it is ready.

    Args:
        tell: told how far it is.

    Raises:
        NotServedError: it cannot become ready, or did not in time.
    """
    begun = lasting_since = time.monotonic()
    while True:
        model = await cluster.model(name)
        status = model.get("status") or {}
        conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
        ready, accepted = conditions.get("Ready") or {}, conditions.get("Accepted") or {}
        if ready.get("status") == "True":
            return model
        now, reason = time.monotonic(), str(ready.get("reason") or "")
        said = f"{reason}: {ready.get('message') or ''}" if ready else "the operator has not seen it"
        if reason not in _LASTING:
            lasting_since = now
        blocked = (model["spec"].get("memoryPolicy") == "Block") and reason == "MemoryTooSmall"
        if accepted.get("status") == "False" or status.get("phase") == "Failed" or blocked:
            raise NotServedError(said)
        if now - lasting_since > _PATIENCE_SEC:
            raise NotServedError(f"{said} (for {_PATIENCE_SEC:.0f} s)")
        if now - begun > timeout_sec:
            raise NotServedError(f"{said} (after {timeout_sec:.0f} s)")
        tell(f"waiting for {name}, {now - begun:.0f} s: {said}")
        await asyncio.sleep(_POLL_SEC)
