"""Bytes as people read them, and as Kubernetes quantities."""

from __future__ import annotations

__all__ = ["mebibytes", "shown_size"]

_MIB = 1 << 20
_GIB = 1 << 30


def mebibytes(size_bytes: int) -> str:
    """A quantity in Mi, rounded up: small, and the same as long as it is about the same."""
    return f"{-(-size_bytes // _MIB)}Mi"


def shown_size(size_bytes: int) -> str:
    """One decimal of a Gi, from 1 Gi on: "5.1Gi"; less in Mi. Rounded up, so that what is needed never looks less."""
    if size_bytes < _GIB:
        return mebibytes(size_bytes)
    tenths = -(-size_bytes * 10 // _GIB)
    return f"{tenths // 10}.{tenths % 10}Gi" if tenths % 10 else f"{tenths // 10}Gi"
