"""The gateway: one OpenAI-compatible address for all LlamaModels."""
