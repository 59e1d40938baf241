"""The API server's audit log: who wrote what, and when. It holds every write and no read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AuditLog", "Write"]


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write that the API server carried out. `time` is RFC 3339 with microseconds and sorts as text."""

    time: str
    user: str
    pod: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int

    def __str__(self) -> str:
        return (
            f"{self.time} {self.pod or self.user} {self.verb} {self.resource} {self.namespace}/{self.name} {self.code}"
        )


class AuditLog:
    """Reads what has been written since it was made, or since `forget`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size

    def forget(self) -> None:
        """Starts anew from here."""
        self._offset = self._path.stat().st_size

    def writes(self, *, user: str, leases: bool = False) -> list[Write]:
        """Writes of one user, in order; the leases of leader election are left out unless asked for."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")
        entries = [_write(json.loads(line)) for line in lines[:-1] if b'"ResponseComplete"' in line]
        chosen = [w for w in entries if w.user == user and (leases or w.resource != "leases")]
        return sorted(chosen, key=lambda write: write.time)


def _write(entry: dict[str, Any]) -> Write:
    reference, user = entry.get("objectRef", {}), entry["user"]
    pods = user.get("extra", {}).get("authentication.kubernetes.io/pod-name", [""])
    resource = reference.get("resource", "")
    if subresource := reference.get("subresource"):
        resource = f"{resource}/{subresource}"
    return Write(
        time=entry["requestReceivedTimestamp"],
        user=user["username"],
        pod=pods[0],
        verb=entry["verb"],
        resource=resource,
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=entry.get("responseStatus", {}).get("code", 0),
    )
