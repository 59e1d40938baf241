"""End to end: a real kubelet, a real llama-server, a real GGUF."""
