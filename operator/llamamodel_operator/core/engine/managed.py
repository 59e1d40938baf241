"""Flags that the operator sets on every llama-server, and the field to use instead."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MANAGED_FLAGS"]

MANAGED_FLAGS: Mapping[str, str] = {
    "--model": "use spec.model",
    "--alias": "use spec.servedModelName",
    "--host": "remove it: the server listens on all addresses of the pod",
    "--port": "remove it: the Service, the probes and the operator use one fixed port",
    "--api-prefix": "remove it: the probes and the operator use the plain paths",
}
"""By canonical name: what to do."""
