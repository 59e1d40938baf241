"""Decisions: pure functions from what is known to what should be. No input or output of any kind."""
