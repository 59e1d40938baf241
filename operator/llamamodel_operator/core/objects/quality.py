"""Quality of service of a pod, as its main container's resources make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_guaranteed"]


def is_guaranteed(resources: Mapping[str, Any]) -> bool:
    """Whether this container alone would make its pod one of guaranteed quality: limits of CPU and memory that are its
    requests too, which they are where there are no others."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return all(name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))
