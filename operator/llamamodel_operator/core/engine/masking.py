"""Secrets on command lines and in environment variables: which they are, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MASK", "is_secret_flag", "is_secret_variable", "mask_command"]

MASK = "***"
"""What is shown in the place of a secret."""

_SECRET_WORDS = frozenset({"key", "keys", "apikey", "token", "password", "passwd", "secret", "secrets", "credential"})
_SECRET_FLAGS = frozenset({"--api-key", "--hf-token", "-hft", "--mcp-servers-json"})
"""Those of llama-server; definitions of MCP servers carry tokens as well."""

_SEPARATOR = re.compile(r"[=\s]")

_PLACES = frozenset({"file", "path", "dir", "name", "id"})
"""With one of these words, a name says where a secret is, and not what it is."""


def is_secret_flag(word: str) -> bool:
    """Whether the value of a flag is a secret. Goes by the name, so that a misspelt --apikey is covered too."""
    if not word.startswith("-"):
        return False
    spelling = word.split("=", 1)[0].replace("_", "-").lower()
    return spelling in _SECRET_FLAGS or _is_secret_name(spelling)


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable holds a secret, by its name: LLAMA_API_KEY, HF_TOKEN, DB_PASSWORD."""
    return _is_secret_name(name.lower())


def mask_command(words: Sequence[str]) -> tuple[str, ...]:
    """The words with all secrets replaced, as the command line is shown in the status and by `render`.

    What is wrongly written is masked too: a flag and its value in one word, with a blank or an equals sign, and every
    stray word up to the next flag.
    """
    masked: list[str] = []
    value_next = stray = False
    for word in words:
        name = _SEPARATOR.split(word, maxsplit=1)[0]
        secret = is_secret_flag(name) or is_secret_flag("--" + name.lstrip("-"))
        if value_next or (stray and not word.startswith("-")):
            masked.append(MASK)
            value_next, stray = False, True
        elif secret and len(name) < len(word):
            masked.append(f"{name}{word[len(name)]}{MASK}")
        else:
            masked.append(word)
            value_next, stray = secret and word.startswith("-"), False
    return tuple(masked)


def _is_secret_name(name: str) -> bool:
    parts = frozenset(re.split(r"[-_]+", name))
    return bool(parts & _SECRET_WORDS) and not parts & _PLACES
