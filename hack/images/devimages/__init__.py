"""Builds the container images of the local cluster, with Docker or, where there is none, with buildah."""
