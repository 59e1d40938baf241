"""The generator behind `python3 hack/chart`. Run it with the locked dependencies."""
