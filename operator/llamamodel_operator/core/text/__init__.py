"""Texts that a user brings: grammars, JSON schemas, chat templates, system prompts; checked before anything runs."""
