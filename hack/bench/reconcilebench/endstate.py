"""What is there in the end, without what must differ, so that floor and operator can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from llamamodel_operator.api.labels import APPLIED_HASH_ANNOTATION

from .api import Api
from .errors import BenchError
from .objects import Paths

__all__ = ["EndState", "compare", "read_end_state"]

_UNIQUE = ("uid", "resourceVersion", "creationTimestamp")
_SAMPLE = "model-00000"


class EndState:
    """Digests of all objects by (kind, name); one model's objects in full, to show where they differ."""

    def __init__(self) -> None:
        self.digests: dict[tuple[str, str], str] = {}
        self.samples: dict[str, str] = {}
        self.numbers: dict[str, int] = {}

    def add(self, kind: str, raw: Mapping[str, Any], *, namespace: str) -> None:
        name = raw["metadata"]["name"]
        text = _normal(raw, namespace=namespace)
        self.digests[kind, name] = sha256(text).hexdigest()
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        if name == _SAMPLE:
            self.samples[kind] = text.decode()


async def read_end_state(api: Api, *, namespace: str, models: int) -> EndState:
    """Raises BenchError where an object or a status is missing."""
    paths, state = Paths(namespace=namespace), EndState()
    for kind, path in (("LlamaModel", paths.models), ("Deployment", paths.deployments), ("Service", paths.services)):
        async for raw in api.list(path):
            if kind == "LlamaModel" and not (raw.get("status") or {}).get("conditions"):
                raise BenchError(f"{namespace}/{raw['metadata']['name']} has no status")
            state.add(kind, raw, namespace=namespace)
        if state.numbers.get(kind, 0) != models:
            raise BenchError(f"{namespace} has {state.numbers.get(kind, 0)} of {kind}, not {models}")
    return state


def compare(*, floor: EndState, ours: EndState) -> None:
    """Raises BenchError where the two halves did not end alike; then they cannot be compared in time either."""
    different = [key for key, digest in floor.digests.items() if ours.digests.get(key) != digest]
    if not different and floor.numbers == ours.numbers:
        return
    kind, name = different[0] if different else ("", "")
    shown = f"; floor: {floor.samples.get(kind)}; operator: {ours.samples.get(kind)}" if kind else ""
    raise BenchError(
        f"the floor and the operator ended with different objects: {floor.numbers} and {ours.numbers}, "
        f"{len(different)} differ, the first is {kind} {name}{shown}"
    )


def _normal(raw: Mapping[str, Any], *, namespace: str) -> bytes:
    """The object with field ownership, without ids, times and addresses."""
    metadata = {key: value for key, value in raw["metadata"].items() if key not in _UNIQUE}
    metadata["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"} for entry in metadata.get("managedFields") or []
    ]
    metadata["managedFields"].sort(
        key=lambda entry: (entry["manager"], entry["operation"], entry.get("subresource", ""))
    )
    annotations = metadata.get("annotations") or {}
    uids = [owner["uid"] for owner in metadata.get("ownerReferences") or []]
    normal: dict[str, Any] = {**raw, "metadata": metadata}
    if APPLIED_HASH_ANNOTATION in annotations:
        metadata["annotations"] = {**annotations, APPLIED_HASH_ANNOTATION: ""}
    if "clusterIP" in (raw.get("spec") or {}):
        normal["spec"] = {**raw["spec"], "clusterIP": "", "clusterIPs": []}
    if conditions := (raw.get("status") or {}).get("conditions"):
        undated = [{**condition, "lastTransitionTime": ""} for condition in conditions]
        normal["status"] = {**raw["status"], "conditions": undated}
    text = orjson.dumps(normal, option=orjson.OPT_SORT_KEYS)
    for uid in uids:
        text = text.replace(uid.encode(), b"UID")
    return text.replace(namespace.encode(), b"NAMESPACE")
