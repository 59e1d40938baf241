"""Hooks of MkDocs: stars in the nav, files of the repository that pages link to, and diagrams without another server.

MERMAID names the file of mermaid (`mermaid.min.js`) that draws the diagrams; without it they stay text.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[2]
_FOLDER = "repository"
"""Where in the site files from outside of docs/ are."""
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")
_SCRIPT = "assets/mermaid.min.js"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replaces entries with a star by the pages that they stand for; sections without any go."""
    folder = Path(config.docs_dir)
    nav = config.nav or []
    config.nav = _expanded(nav, folder, {entry for entry in _entries(nav) if "*" not in entry})
    if os.environ.get("MERMAID"):
        config.extra_javascript.append(_SCRIPT)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside of docs/ that pages link to, and those that these link to."""
    if script := os.environ.get("MERMAID"):
        files.append(File.generated(config, _SCRIPT, abs_src_path=script))
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target not in seen and not target.startswith("docs/"):
                seen.add(target)
                path = str(_ROOT / target)
                files.append(File.generated(config, f"{_FOLDER}/{target}", abs_src_path=path))
                if target.endswith(".md"):
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Leads links to where the site has what they mean: files of the repository have another place in it."""
    place = page.file.src_uri
    source = place.removeprefix(f"{_FOLDER}/") if place.startswith(f"{_FOLDER}/") else f"docs/{place}"

    def led(match: re.Match[str]) -> str:
        target = _target(source, match[1])
        if target is None:
            return match[0]  # MkDocs says that it leads nowhere
        uri = target.removeprefix("docs/") if target.startswith("docs/") else f"{_FOLDER}/{target}"
        return posixpath.relpath(uri, posixpath.dirname(place) or ".") + (match[2] or "")

    return _LINK.sub(led, markdown)


def _target(source: str, link: str) -> str | None:
    """The file of the repository that a link in another one means; a folder means its README, where it has one."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if (_ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    return path if (_ROOT / path).is_file() and not path.startswith("..") else None


def _targets(source: str) -> Iterator[str]:
    for match in _LINK.finditer((_ROOT / source).read_text(encoding="utf-8")):
        if target := _target(source, match[1]):
            yield target


def _entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from _entries(value)
    elif isinstance(nav, list):
        for value in nav:
            yield from _entries(value)


def _expanded(nav: list[Any], folder: Path, named: set[str]) -> list[Any]:
    made: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(entry))
            made += [uri for uri in found if uri not in named]
            named.update(found)
        elif isinstance(entry, dict):
            [(title, value)] = entry.items()
            inner = _expanded(value, folder, named) if isinstance(value, list) else value
            if inner:
                made.append({title: inner})
        else:
            made.append(entry)
    return made
