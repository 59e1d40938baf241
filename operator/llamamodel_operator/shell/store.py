"""A cache of what the watches told and our own writes answered; reconciles read from it, not from the API."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from llamamodel_operator.api.labels import MODEL_LABEL
from llamamodel_operator.core.objects.job import INSPECTION_LABEL
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Resource,
)

__all__ = [
    "CACHED",
    "CHILDREN",
    "Key",
    "Store",
    "claim_group",
    "config_map_group",
    "controller_uid",
    "inspection_group",
    "name_groups",
    "version_of",
]


class Key(NamedTuple):
    """A namespaced name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Key:
        return cls(raw["metadata"]["namespace"], raw["metadata"]["name"])


CHILDREN = (DEPLOYMENTS, SERVICES, CONFIG_MAPS, POD_DISRUPTION_BUDGETS)
"""Kinds that a plan consists of."""

CACHED = (MODELS, *CHILDREN, JOBS, PODS, PERSISTENT_VOLUME_CLAIMS)
"""Kinds that are watched and cached."""

_METADATA = (
    "annotations",
    "deletionTimestamp",
    "generation",
    "labels",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "uid",
)
_POD_STATUS = ("phase", "podIP", "conditions", "containerStatuses", "initContainerStatuses")
_TOMBSTONES = 4096


class _Entry(NamedTuple):
    version: int
    uid: str
    groups: tuple[Key, ...]
    text: bytes


class Store:
    """Objects by kind and key. A newer version replaces an older one, whatever order they come in.

    Resource versions are compared as numbers, as Kubernetes allows (KEP-5504). Objects are kept as JSON text
    and without what no decision needs: parsed, they would take five times the memory.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[Key, _Entry]] = {resource.kind: {} for resource in CACHED}
        self._groups: dict[tuple[str, Key], set[Key]] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()

    def put(self, resource: Resource, raw: Mapping[str, Any]) -> bool:
        """Takes note of an object; False where this version or a newer one is known already."""
        key, version, uid = Key.of(raw), version_of(raw), raw["metadata"].get("uid", "")
        entries = self._entries[resource.kind]
        known = entries.get(key)
        if (known is not None and known.version >= version) or self._tombstones.get(uid, -1) >= version:
            return False
        self._forget(resource, key)
        groups = _groups(resource, raw)
        entries[key] = _Entry(version, uid, groups, orjson.dumps(_trimmed(resource, raw)))
        for group in groups:
            self._groups.setdefault((resource.kind, group), set()).add(key)
        return True

    def remove(self, resource: Resource, raw: Mapping[str, Any]) -> None:
        """Takes note of a deletion; a later object of the same name is not touched."""
        key, uid = Key.of(raw), raw["metadata"].get("uid", "")
        self._tombstones[uid] = version_of(raw)
        if len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)
        known = self._entries[resource.kind].get(key)
        if known is not None and known.uid == uid:
            self._forget(resource, key)

    def discard(self, resource: Resource, key: Key) -> None:
        """Forgets an object that is not there any more."""
        self._forget(resource, key)

    def get(self, resource: Resource, key: Key) -> dict[str, Any] | None:
        """The object as last seen, or None."""
        entry = self._entries[resource.kind].get(key)
        return None if entry is None else orjson.loads(entry.text)

    def select(self, resource: Resource, group: Key) -> list[dict[str, Any]]:
        """Pods and children: those labelled with this child name. See `keys_in` for what the groups are."""
        return [orjson.loads(self._entries[resource.kind][key].text) for key in self.keys_in(resource, group)]

    def keys_in(self, resource: Resource, group: Key) -> tuple[Key, ...]:
        """Keys of a group: of pods and children the child name in their label; of models their child name, and what
        they read from, see `claim_group` and `config_map_group`."""
        return tuple(sorted(self._groups.get((resource.kind, group), ())))

    def keys(self, resource: Resource) -> tuple[Key, ...]:
        """All known objects of a kind."""
        return tuple(self._entries[resource.kind])

    def version(self, resource: Resource, key: Key) -> int:
        """Resource version of an object as last seen; 0 where it is not known."""
        entry = self._entries[resource.kind].get(key)
        return 0 if entry is None else entry.version

    def _forget(self, resource: Resource, key: Key) -> None:
        entry = self._entries[resource.kind].pop(key, None)
        for group in entry.groups if entry is not None else ():
            members = self._groups[resource.kind, group]
            members.discard(key)
            if not members:
                del self._groups[resource.kind, group]


def claim_group(claim: Key) -> Key:
    """The group of the models that read from this claim."""
    return Key(claim.namespace, f"claim/{claim.name}")


def inspection_group(child: Key) -> Key:
    """The group of the pods that inspect the files of the model with this child name."""
    return Key(child.namespace, f"inspection/{child.name}")


def config_map_group(config_map: Key) -> Key:
    """The group of the models that take a text from this ConfigMap."""
    return Key(config_map.namespace, f"configmap/{config_map.name}")


def name_groups(raw: Mapping[str, Any]) -> tuple[Key, ...]:
    """The groups of the models that may have a name of this LlamaModel at the gateway, whatever their namespace."""
    key = Key.of(raw)
    served = (raw.get("spec") or {}).get("servedModelName") or key.name
    return tuple(dict.fromkeys(Key("", f"name/{name}") for name in (str(served), str(key))))


def controller_uid(raw: Mapping[str, Any]) -> str | None:
    """Who owns an object, as the garbage collector sees it."""
    owners = raw["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def version_of(raw: Mapping[str, Any]) -> int:
    """The resource version as a number."""
    text = raw["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


def _groups(resource: Resource, raw: Mapping[str, Any]) -> tuple[Key, ...]:
    key = Key.of(raw)
    if resource is MODELS:
        read_from = dict.fromkeys(_read_from(key.namespace, raw.get("spec") or {}))
        return (Key(key.namespace, child_name(key.name)), *read_from, *name_groups(raw))
    labels = raw["metadata"].get("labels") or {}
    if resource is PODS and (inspected := labels.get(INSPECTION_LABEL)):
        return (inspection_group(Key(key.namespace, inspected)),)
    label = labels.get(MODEL_LABEL)
    return (Key(key.namespace, label),) if label else ()


def _read_from(namespace: str, part: object) -> tuple[Key, ...]:
    """The claims and ConfigMaps that a spec names, wherever in it."""
    if isinstance(part, list):
        return tuple(group for item in part for group in _read_from(namespace, item))
    if not isinstance(part, dict):
        return ()
    found: list[Key] = []
    for field, value in part.items():
        match field, value:
            case "pvc", {"claimName": str(name)}:
                found.append(claim_group(Key(namespace, name)))
            case "configMapKeyRef", {"name": str(name)}:
                found.append(config_map_group(Key(namespace, name)))
            case (("env" | "affinity"), _):
                pass  # what these name is none of ours
            case _:
                found.extend(_read_from(namespace, value))
    return tuple(found)


def _trimmed(resource: Resource, raw: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: raw["metadata"][name] for name in _METADATA if name in raw["metadata"]}
    if resource in (MODELS, JOBS, PERSISTENT_VOLUME_CLAIMS) and "creationTimestamp" in raw["metadata"]:
        metadata["creationTimestamp"] = raw["metadata"]["creationTimestamp"]
    if resource is JOBS:
        return {"metadata": metadata, "status": {"conditions": (raw.get("status") or {}).get("conditions")}}
    if resource is PERSISTENT_VOLUME_CLAIMS:
        return {
            "metadata": metadata,
            "spec": {"accessModes": (raw.get("spec") or {}).get("accessModes")},
            "status": {"phase": (raw.get("status") or {}).get("phase")},
        }
    if resource is PODS:
        status = raw.get("status") or {}
        return {
            "metadata": metadata,
            "spec": {"nodeName": (raw.get("spec") or {}).get("nodeName")},
            "status": {name: status[name] for name in _POD_STATUS if name in status},
        }
    # Items of a list come without these two.
    return {**raw, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
