"""The API server's audit log: who wrote what, and when it was done. A clock that costs the cluster nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

__all__ = ["AuditLog", "Ledger", "Write"]

LEASE = "leases"


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write as the API server saw it. Times are seconds since the epoch, by the server's clock.

    Attributes:
        what: resource and subresource, such as `llamamodels/status`.
        received, done: when the request came in, when its answer was complete.
    """

    agent: str
    verb: str
    what: str
    namespace: str
    name: str
    code: int
    received: float
    done: float

    @property
    def succeeded(self) -> bool:
        return 200 <= self.code < 300


class AuditLog:
    """Reads what has been added since the last look."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""

    def close(self) -> None:
        self._file.close()

    def skip(self) -> None:
        """Forgets what has been written so far."""
        for _ in self.read():
            pass

    def read(self) -> Iterator[Write]:
        """The completed writes since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            event = orjson.loads(line)
            if event["stage"] == "ResponseComplete":
                yield _write(event)


class Ledger:
    """The writes of one half in one namespace, sorted by who did them."""

    def __init__(self, *, namespace: str, makers: str, models: int) -> None:
        """`makers`: how the user agent of those begins who make the children."""
        self._namespace = namespace
        self._makers = makers
        self._models = models
        self._created: dict[str, float] = {}
        self._made: dict[str, dict[str, float]] = {
            what: {} for what in ("deployments", "services", "llamamodels/status")
        }
        self.writes: Counter[tuple[str, str]] = Counter()
        """Writes of the makers by (what, verb), failed ones included, the Lease left out."""
        self.failed = 0
        """How many of these did not succeed."""

    def note(self, write: Write) -> None:
        if write.namespace == self._namespace and write.succeeded and write.what == "llamamodels":
            self._created.setdefault(write.name, write.received)
        if not write.agent.startswith(self._makers) or write.what == LEASE or write.what == "llamamodels":
            return
        self.writes[write.what, write.verb] += 1
        if not write.succeeded:
            self.failed += 1
        elif write.namespace == self._namespace and write.what in self._made:
            self._made[write.what].setdefault(write.name, write.done)

    @property
    def made(self) -> int:
        """How many of the needed objects exist."""
        return sum(len(names) for names in self._made.values())

    @property
    def complete(self) -> bool:
        """Whether every child and every status has been written."""
        return all(len(names) == self._models for names in self._made.values())

    @property
    def seconds(self) -> float:
        """From the first request that created a model to the last needed write's answer."""
        return max(max(names.values()) for names in self._made.values()) - min(self._created.values())

    @property
    def creating_seconds(self) -> float:
        """From the first request that created a model to the last one."""
        return max(self._created.values()) - min(self._created.values())

    @property
    def deployment_latencies(self) -> list[float]:
        """Seconds from the request that created a model to the answer about its Deployment, sorted."""
        return sorted(done - self._created[name] for name, done in self._made["deployments"].items())


def _write(event: dict[str, Any]) -> Write:
    target = event.get("objectRef") or {}
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    return Write(
        agent=event.get("userAgent") or "",
        verb=event["verb"],
        what=f"{target.get('resource', '')}{subresource}",
        namespace=target.get("namespace") or "",
        name=target.get("name") or "",
        code=(event.get("responseStatus") or {}).get("code", 0),
        received=_seconds(event["requestReceivedTimestamp"]),
        done=_seconds(event["stageTimestamp"]),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
