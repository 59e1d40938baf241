"""The generator behind `python3 hack/chart`. Needs nothing but Python's own library."""
