"""What the benchmarks of a running llama-server share."""
