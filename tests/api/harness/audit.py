"""Who wrote what, as the API server saw it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["AuditLog", "Mark", "Write", "summary"]

_OPERATOR = "llamamodel-operator/"


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write that was answered, refused ones too.

    Attributes:
        what: resource and subresource, such as `llamamodels/status`.
        agent: the user agent; the operator's begins with its name.
        user: who it was, by certificate or token.
        time: when the request came in, in seconds since the epoch, by the server's clock.
    """

    what: str
    verb: str
    namespace: str
    name: str
    code: int
    agent: str
    user: str
    time: float

    @property
    def is_the_operators(self) -> bool:
        return self.agent.startswith(_OPERATOR)

    def __str__(self) -> str:
        return f"{self.verb} {self.what} {self.namespace}/{self.name} ({self.code})"


@dataclass(frozen=True)
class Mark:
    """A place in the log, and the time: a line may come into the log after its answer has come to who had asked."""

    log: AuditLog
    offset: int
    time: float

    def writes(self, *, namespace: str = "", leases: bool = False) -> list[Write]:
        """The operator's writes since this mark, by default without those to its lease."""
        return [
            write
            for write in self.log.read(self.offset)
            if write.time >= self.time
            and write.is_the_operators
            and (leases or write.what != "leases")
            and (not namespace or write.namespace == namespace)
        ]


class AuditLog:
    """Every write, in the order in which they were answered."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> Mark:
        """Now."""
        return Mark(self, self._path.stat().st_size, time.time())

    def read(self, offset: int) -> Iterator[Write]:
        """All writes from an offset on, other people's too."""
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file.read().split(b"\n")[:-1]:
                event = json.loads(line)
                if event["stage"] == "ResponseComplete":
                    yield _write(event)


def summary(writes: Sequence[Write]) -> list[str]:
    """What was written, without names: one word for each write, sorted."""
    return sorted(f"{write.verb} {write.what}" for write in writes)


def _write(event: dict[str, Any]) -> Write:
    target = event.get("objectRef") or {}
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    return Write(
        what=f"{target.get('resource', '')}{subresource}",
        verb=event["verb"],
        namespace=target.get("namespace") or "",
        name=target.get("name") or "",
        code=(event.get("responseStatus") or {}).get("code", 0),
        agent=event.get("userAgent") or "",
        user=event["user"]["username"],
        time=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
    )
