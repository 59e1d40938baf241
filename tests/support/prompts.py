"""Prompts of many kinds, for what must hold whatever is asked."""

from __future__ import annotations

__all__ = ["PROMPTS"]

PROMPTS = (
    "Describe a cat as JSON.",
    "List three colours:",
    "What is the capital of France?",
    "{",
    "A user with name, age and address:",
    "Write a long story about a dragon.",
    "1 2 3 4 5",
    "Answer: ",
    "def main():",
    "日本語で",
    "{'name': 'Anna', 'age': 3}",
    "[[[[",
    "The quick brown fox",
    "SELECT * FROM users;",
    "<html><body>",
    "Once upon a time",
    "Give me an empty object",
    "name,age\nAnna,3\n",
    '"key": "value", "key": "value",',
    " ",
)
