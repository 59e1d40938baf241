"""Catalogues as JSON: one flag a line, in the build's own order, so that a diff between builds can be read."""

import json
from pathlib import Path

from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState
from llamamodel_operator.core.engine.catalogues import Catalogues

__all__ = ["FOLDER", "file_of", "older_than", "read_all", "render"]

FOLDER = Path(__file__).parents[3] / "operator" / "llamamodel_operator" / "core" / "engine" / "catalogues"
"""Where the operator has its catalogues."""


def file_of(build: int, *, folder: Path = FOLDER) -> Path:
    """The file of one build."""
    return folder / f"b{build}.json"


def read_all(folder: Path = FOLDER) -> Catalogues | None:
    """All that are there; None where there are none."""
    files = {int(path.stem.removeprefix("b")): path for path in folder.glob("b*.json")}
    return Catalogues(files) if files else None


def older_than(build: int, *, folder: Path = FOLDER) -> Catalogue | None:
    """The next older one."""
    catalogues = read_all(folder)
    older = [number for number in catalogues.builds if number < build] if catalogues else []
    return catalogues.get(older[-1]) if catalogues and older else None


def render(catalogue: Catalogue) -> str:
    """The text of the file."""
    head = {
        "build": catalogue.build,
        "source": catalogue.source,
        "chat_templates": sorted(catalogue.chat_templates),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    flags = ",\n".join(json.dumps(_entry(flag)) for flag in catalogue.flags)
    return "{\n" + "\n".join(lines) + '\n"flags": [\n' + flags + "\n]\n}\n"


def _entry(flag: Flag) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": flag.name,
        "aliases": flag.aliases,
        "negations": flag.negations,
        "env": flag.env,
        "arity": flag.arity if flag.arity > 1 else None,
        "type": flag.value_type,
        "allowed": flag.allowed,
        "words": flag.words,
        "default": flag.default,
        "repeatable": flag.repeatable,
        "state": flag.state if flag.state is not FlagState.LIVE else None,
        "replacement": flag.replacement,
        "negated_replacement": flag.negated_replacement,
        "carried": flag.carried,
    }
    return {key: value for key, value in entry.items() if value not in ((), None, False)}
