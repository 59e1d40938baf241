"""Fetches the small GGUF files that the demo and the end-to-end tests serve."""
