"""Reads from the start of a llama-server's log what memory it took, and whether it has a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.core.engine.buffer_log import Measured, measured_buffers
from llamamodel_operator.core.engine.offload_log import Offload, offload_of
from llamamodel_operator.shell.client import ClusterClient

__all__ = ["LoadLog", "read_load_log"]

_LIMIT_BYTES = 1 << 20
"""From the start of the log. Loading writes 20 kB with `-lv 4`, and 400 kB for a small model with all messages."""


@dataclass(frozen=True, kw_only=True)
class LoadLog:
    """What the log of a server tells of its start; None for what it does not tell."""

    measured: Measured | None = None
    offload: Offload | None = None


async def read_load_log(client: ClusterClient, namespace: str, pod: str) -> LoadLog:
    """One request. Of a log whose start was rotated away nothing is known. Raises ApiError."""
    log = await client.read_log(namespace=namespace, name=pod, container=CONTAINER, limit_bytes=_LIMIT_BYTES)
    lines = log.decode(errors="replace").splitlines()
    measured = measured_buffers(lines)
    return LoadLog(measured=measured, offload=offload_of(lines, measured=measured))
