"""Exit codes of all commands."""

from __future__ import annotations

__all__ = ["FINE", "FOUND", "UNREADABLE"]

FINE, FOUND, UNREADABLE = 0, 1, 2
