"""How long the operator takes for many LlamaModels, next to the same writes without an operator."""
