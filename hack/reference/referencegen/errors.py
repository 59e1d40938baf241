"""What can go wrong while the reference is generated."""

from __future__ import annotations

__all__ = ["IncompleteSourceError"]


class IncompleteSourceError(Exception):
    """The sources lack something that the reference needs; the message says where, and what to do."""
