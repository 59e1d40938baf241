"""The LlamaModel API: typed spec and status, conditions and reasons, labels, and the CRD generated from them."""
