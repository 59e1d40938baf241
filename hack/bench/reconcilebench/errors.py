"""What can go wrong with a benchmark, as sentences for people."""

from __future__ import annotations

__all__ = ["BenchError"]


class BenchError(Exception):
    """The benchmark cannot give a result; the message says what was expected, what was found, what to do."""
