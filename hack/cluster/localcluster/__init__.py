"""A Kubernetes cluster for development and tests, from a bare Linux machine."""
