"""Fetches real llama-server builds, to make flag catalogues from and to test against."""
