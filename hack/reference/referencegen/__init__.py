"""The generator behind `python hack/reference`, which needs the operator's own packages."""
