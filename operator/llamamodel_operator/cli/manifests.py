"""Reads files, folders and standard input; sorts what is in them into LlamaModels and the ConfigMaps they refer to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.cli.documents import Document, Problem, read_documents
from llamamodel_operator.core.facts import Missing
from llamamodel_operator.core.schema_check import is_meant_as_model
from llamamodel_operator.core.texts import text_of

__all__ = ["Manifest", "Manifests", "read_file", "read_manifests"]

MAX_BYTES = 8 * 1024 * 1024
"""Of one file. An object in Kubernetes has 1.5 MiB at most."""

_MOST_PROBLEMS = 20
"""Of one file; nobody reads more."""

_SUFFIXES = (".yaml", ".yml", ".json")
_NO_MANIFESTS = ("kustomization.yaml", "kustomization.yml")
"""Left out of folders, as they are no objects."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A LlamaModel as it was found.

    Attributes:
        raw: the object.
        document: where it stands; None where it comes from a cluster.
    """

    raw: Mapping[str, Any]
    document: Document | None = None

    @property
    def namespace(self) -> str:
        """As it says; empty where it says none."""
        return self._said("namespace")

    @property
    def name(self) -> str:
        """As it says; empty where it says none."""
        return self._said("name") or self._said("generateName")

    def _said(self, field: str) -> str:
        metadata = self.raw.get("metadata")
        value = metadata.get(field) if isinstance(metadata, Mapping) else None
        return value if isinstance(value, str) else ""

    @property
    def file(self) -> str:
        """As it was named; empty where it comes from a cluster."""
        return self.document.file if self.document else ""

    def line_of(self, field: str) -> int | None:
        """The line of a field."""
        return self.document.line_of(field) if self.document else None


@dataclass
class Manifests:
    """Everything that was read."""

    models: list[Manifest] = field(default_factory=list)
    config_maps: list[Mapping[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0
    """Objects of other kinds."""

    def text(self, ref: ConfigMapKey, namespace: str) -> str | Missing | None:
        """What the key of a ConfigMap holds; None where no file has that ConfigMap.

        A ConfigMap or a LlamaModel without namespace gets one when it is applied, so it may be any.
        """
        named = [found for found in self.config_maps if found["metadata"].get("name") == ref.name]
        fitting = [found for found in named if found["metadata"].get("namespace") in (None, namespace)]
        if not (fitting if namespace else named):
            return None
        config_map = (fitting if namespace else named)[-1]
        return text_of(config_map, ref)


def read_manifests(paths: Sequence[str], *, recursive: bool = False) -> Manifests:
    """Reads all of them. What cannot be read is among the problems."""
    found = Manifests()
    seen: set[str] = set()
    for path in paths:
        for file in _files(path, recursive=recursive, problems=found.problems):
            if os.path.realpath(file) in seen:
                continue
            seen.add(os.path.realpath(file))
            data = read_file(file)
            if isinstance(data, Problem):
                found.problems.append(data)
                continue
            _read_into(found, data, file=_named(file))
    return found


def _read_into(found: Manifests, data: bytes, *, file: str) -> None:
    documents, problems = read_documents(data, file=file)
    for document in documents:
        problems += document.strays()
        for item in document.items():
            problems += _sort(item, found)
    found.problems += problems[:_MOST_PROBLEMS]
    if len(problems) > _MOST_PROBLEMS:
        left = len(problems) - _MOST_PROBLEMS
        found.problems.append(Problem(file=file, message=f"and {left} more: is it a file of manifests?"))


def read_file(file: str) -> bytes | Problem:
    """The bytes of a file, or of standard input for `-`."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Problem(file=_named(file), message=f"cannot be read: {reason}")
    if len(data) > MAX_BYTES:
        return Problem(file=_named(file), message=f"is larger than {MAX_BYTES // 1024**2} MiB: is it a manifest?")
    return data


def _named(file: str) -> str:
    return "<stdin>" if file == "-" else file


def _files(path: str, *, recursive: bool, problems: list[Problem]) -> Iterator[str]:
    folder = Path(path)
    try:
        is_folder = path != "-" and folder.is_dir()
    except (OSError, ValueError):
        is_folder = False
    if not is_folder:
        yield path
        return
    reached = False
    for root, folders, names in os.walk(folder, onerror=lambda error: problems.append(_unreadable(error))):
        folders[:] = sorted(folders) if recursive else []
        for name in sorted(names):
            file = Path(root, name)
            if name.endswith(_SUFFIXES) and name not in _NO_MANIFESTS and file.is_file():
                reached = True
                yield str(file)
    if not reached:
        deeper = "" if recursive else "; --recursive looks into its folders too"
        problems.append(Problem(file=path, message=f"has no {', '.join(_SUFFIXES)} files{deeper}"))


def _unreadable(error: OSError) -> Problem:
    return Problem(file=str(error.filename), message=f"cannot be read: {error.strerror}")


def _sort(document: Document, found: Manifests) -> list[Problem]:
    raw = document.value
    if is_meant_as_model(raw):
        found.models.append(Manifest(raw=raw, document=document))
        return []
    missing = [key for key in ("apiVersion", "kind") if not isinstance(raw.get(key), str) or not raw[key]]
    if missing:
        message = f"expected an object of Kubernetes, found none: {' and '.join(missing)} missing"
        return [Problem(file=document.file, line=document.line, message=message)]
    found.others += 1
    if raw["kind"] == "ConfigMap" and isinstance(raw.get("metadata"), Mapping):
        found.config_maps.append(raw)
    return []
