"""The command line: what the operator would do with a manifest, without a cluster. Thin; all decisions are in core/."""
