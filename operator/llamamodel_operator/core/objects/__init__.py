"""One file per Kubernetes kind: (model, context) to object. What is not wanted is None."""
