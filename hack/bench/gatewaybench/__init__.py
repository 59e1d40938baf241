"""What the benchmark of the gateway measures besides: another proxy, and conversations with real servers."""
