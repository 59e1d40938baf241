"""Makes flag catalogues: what the llama-server of a given build of llama.cpp takes, as facts."""
