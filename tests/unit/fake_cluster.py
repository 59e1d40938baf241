"""An API server in memory, for what the operator does with one: versions, preconditions, conflicts, refusals.

It does not merge: what is applied replaces spec and metadata, which is what server-side apply does to fields that
only the operator writes. The real merge is tested against the real API server.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llamamodel_operator.shell.client import LEASES, ApiError, ClusterClient, Resource
from llamamodel_operator.shell.store import Key


class Write(NamedTuple):
    verb: str
    kind: str
    name: str


class FakeCluster(ClusterClient):
    """Counts writes; `before_write` may raise, or change the cluster as somebody else would."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, Key], dict[str, Any]] = {}
        self._version = 1000
        self.writes: list[Write] = []
        self.bodies: list[Mapping[str, Any]] = []
        self.before_write: Callable[[Write], None] = lambda _: None
        self.before_read: Callable[[str], None] = lambda _: None
        self.fence = None
        self.logs: dict[str, bytes] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}

    # What a test does

    def has(self, resource: Resource, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Puts an object there, as somebody else would."""
        stored = self._store(resource, raw)
        stored["metadata"].setdefault("uid", f"uid-{self._version}")
        return copy.deepcopy(stored)

    def loses(self, resource: Resource, key: Key) -> None:
        del self._objects[resource.kind, key]

    def shows(self, resource: Resource, key: Key) -> dict[str, Any]:
        """The object as it is now."""
        return copy.deepcopy(self._objects[resource.kind, key])

    def keys(self, resource: Resource) -> set[Key]:
        return {key for kind, key in self._objects if kind == resource.kind}

    def forget_writes(self) -> None:
        self.writes.clear()
        self.bodies.clear()

    def refuses(self, kind: str, error: Exception) -> None:
        """From now on writes of this kind fail."""

        def check(write: Write) -> None:
            if write.kind == kind:
                raise error

        self.before_write = check

    # What the operator does

    def unfenced(self) -> ClusterClient:
        return self

    async def get(self, resource: Resource, *, namespace: str | None, name: str) -> dict[str, Any] | None:
        self.before_read(resource.kind)
        found = self._objects.get((resource.kind, Key(namespace or "", name)))
        return copy.deepcopy(found)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        chunk_size: int = 500,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        self.before_read(resource.kind)
        label, equals, value = label_selector.partition("=")
        found = [
            copy.deepcopy(raw)
            for (kind, key), raw in self._objects.items()
            if kind == resource.kind
            and namespace in (None, key.namespace)
            and (not label or label in (raw["metadata"].get("labels") or {}))
            and (not equals or raw["metadata"]["labels"][label] == value)
        ]
        for raw in found:  # items of a list come without these two
            raw.pop("apiVersion", None)
            raw.pop("kind", None)
        for start in range(0, max(len(found), 1), chunk_size):
            yield found[start : start + chunk_size]

    async def read_log(
        self,
        *,
        namespace: str,
        name: str,
        container: str,
        limit_bytes: int,
        tail_lines: int | None = None,
        previous: bool = False,
    ) -> bytes:
        self.before_read("Log")
        if name not in self.logs:
            raise ApiError(status=404, reason="NotFound", message=f'pods "{name}" not found')
        lines = self.logs[name].splitlines(keepends=True)
        return b"".join(lines if tail_lines is None else lines[-tail_lines:])[:limit_bytes]

    async def events_about(self, *, namespace: str, uid: str, most: int) -> Sequence[Mapping[str, Any]]:
        self.before_read("Event")
        return self.events.get(uid, [])[:most]

    async def apply(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str | None = None
    ) -> dict[str, Any]:
        self._note("apply" if subresource is None else f"apply-{subresource}", resource, body)
        key = Key.of(body)
        live = self._objects.get((resource.kind, key))
        if subresource is not None and live is None:
            raise ApiError(status=404, reason="NotFound", message=f"{key} not found")
        wanted_uid = body["metadata"].get("uid")
        if wanted_uid and (live is None or live["metadata"]["uid"] != wanted_uid):
            raise ApiError(status=409, reason="Conflict", message="the UID in the precondition does not match")
        if live is not None and subresource == "scale":
            spec = {**live["spec"], "replicas": body["spec"]["replicas"]}
            return copy.deepcopy(self._store(resource, {**live, "spec": spec}))
        if live is not None and subresource is not None:
            return copy.deepcopy(self._store(resource, {**live, subresource: body[subresource]}))
        before = live or {"metadata": {"uid": f"uid-{self._version + 1}", "generation": 0}}
        metadata = {**before["metadata"], **body["metadata"]}
        if before.get("spec") != body.get("spec"):
            metadata["generation"] = before["metadata"].get("generation", 0) + 1
        kept = {"status": before["status"]} if "status" in before else {}
        return copy.deepcopy(self._store(resource, {**body, **kept, "metadata": metadata}))

    async def overwrite(self, resource: Resource, body: Mapping[str, Any]) -> None:
        self._note("patch", resource, body)
        live = self._objects.get((resource.kind, Key.of(body)))
        if live is None:
            raise ApiError(status=404, reason="NotFound", message=f"{Key.of(body)} not found")
        content = {name: body[name] for name in ("spec", "data") if name in body}
        self._store(resource, _merged(live, content))

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        self._note("create", resource, body)
        if (resource.kind, Key.of(body)) in self._objects:
            raise ApiError(status=409, reason="AlreadyExists", message=f"{Key.of(body)} already exists")
        metadata = {**body["metadata"], "uid": f"uid-{self._version + 1}"}
        return copy.deepcopy(self._store(resource, {**body, "metadata": metadata}))

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        self._note("update", resource, body)
        live = self._objects.get((resource.kind, Key.of(body)))
        if live is None:
            raise ApiError(status=404, reason="NotFound", message=f"{Key.of(body)} not found")
        if live["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion"):
            raise ApiError(status=409, reason="Conflict", message="the object has been modified")
        return copy.deepcopy(self._store(resource, body))

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str) -> None:
        self._note("delete", resource, {"metadata": {"namespace": namespace, "name": name}})
        live = self._objects.get((resource.kind, Key(namespace, name)))
        if live is not None and live["metadata"]["uid"] == uid:
            del self._objects[resource.kind, Key(namespace, name)]

    def _note(self, verb: str, resource: Resource, body: Mapping[str, Any]) -> None:
        write = Write(verb, resource.kind, body["metadata"]["name"])
        if self.fence is not None and resource is not LEASES:
            self.fence()
        self.before_write(write)
        self.writes.append(write)
        self.bodies.append(copy.deepcopy(body))

    def _store(self, resource: Resource, raw: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        stored = copy.deepcopy({**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self._version)}})
        self._objects[resource.kind, Key.of(raw)] = stored
        return stored


def _merged(live: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386)."""
    result = dict(live)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = _merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result
