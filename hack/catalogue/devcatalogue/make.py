"""One catalogue from one build."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from devcatalogue.errors import CatalogueError
from devcatalogue.facts import flag
from devcatalogue.help_text import chat_templates, parse_help
from devcatalogue.history import with_removed
from devcatalogue.source import chat_templates_in_source, find_source, parse_source
from llamamodel_operator.core.engine.catalogue import Catalogue

__all__ = ["carry_again", "catalogue_of_help", "catalogue_of_source", "help_of"]

_HELP_SEC = 60.0


def help_of(binary: Path) -> str:
    """What the server's --help prints, as far as it does not depend on the machine."""
    # No variable may change a default, and no cache folder may be found.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "HF_"))}
    try:
        done = subprocess.run(
            [str(binary), "--help"], capture_output=True, text=True, check=False, timeout=_HELP_SEC, env=environment
        )
    except subprocess.TimeoutExpired:
        raise CatalogueError(f"{binary} --help: no answer within {_HELP_SEC:.0f} s") from None
    if done.returncode:
        raise CatalogueError(f"{binary} --help: exit status {done.returncode}; its last line: {done.stderr[-300:]}")
    return done.stdout


def catalogue_of_help(text: str, *, build: int, source: str, older: Catalogue | None) -> Catalogue:
    """From the output of --help, with what `older` had besides."""
    entries = parse_help(text)
    catalogue = Catalogue(
        build=build,
        source=source,
        chat_templates=chat_templates(entries),
        flags=tuple(flag(entry) for entry in entries),
    )
    return with_removed(catalogue, older=older)


def catalogue_of_source(folder: Path, *, build: int, source: str, older: Catalogue | None) -> Catalogue:
    """From a source tree of llama.cpp, with what `older` had besides."""
    root = find_source(folder)
    catalogue = Catalogue(
        build=build,
        source=source,
        chat_templates=chat_templates_in_source(root),
        flags=tuple(flag(entry) for entry in parse_source(root)),
    )
    return with_removed(catalogue, older=older)


def carry_again(catalogue: Catalogue, *, older: Catalogue | None) -> Catalogue:
    """The same build after an older catalogue was added or changed."""
    own = replace(catalogue, flags=tuple(flag for flag in catalogue.flags if not flag.carried))
    return with_removed(own, older=older)
