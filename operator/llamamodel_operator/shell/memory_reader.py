"""Reads what memory a running llama-server took from the log of its pod."""

from __future__ import annotations

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.core.engine.buffer_log import Measured, measured_buffers
from llamamodel_operator.shell.client import ClusterClient

__all__ = ["read_measured"]

_LIMIT_BYTES = 1 << 20
"""From the start of the log. Loading writes 20 kB with `-lv 4`, and 400 kB for a small model with all messages."""


async def read_measured(client: ClusterClient, namespace: str, pod: str) -> Measured | None:
    """One request. None where the log does not tell, or its start was rotated away. Raises ApiError."""
    log = await client.read_log(namespace=namespace, name=pod, container=CONTAINER, limit_bytes=_LIMIT_BYTES)
    return measured_buffers(log.decode(errors="replace").splitlines())
