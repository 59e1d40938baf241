"""Input and output: the cluster client, the cache, the queue, the reconciler, leadership, metrics and health."""
