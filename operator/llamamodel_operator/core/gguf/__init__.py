"""GGUF files: headers, and what memory depends on in them."""
