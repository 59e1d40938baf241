"""A Kubernetes operator that serves GGUF models with llama.cpp's llama-server."""

__version__ = "0.1.0"

__all__ = ["__version__"]
