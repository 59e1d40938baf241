"""Which packages the operator needs, with all that these need, and under which licence each is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["PROJECT", "licence_of", "needed", "page"]

PROJECT = "llamamodel-operator"

_BY_CLASSIFIER = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_BY_FIELD = {"Apache 2.0": "Apache-2.0", "MIT License": "MIT", "BSD 2-Clause License": "BSD-2-Clause"}


def needed() -> list[str]:
    """Names of all packages that the operator needs on this machine, sorted."""
    return sorted(set(_closure(PROJECT, extras=frozenset(), seen={(PROJECT, "")})))


def licence_of(name: str) -> str:
    """As SPDX has it, where the package says it so or in words that are known here; else the words; else nothing."""
    said = distribution(name).metadata
    if "License-Expression" in said:
        return said["License-Expression"]
    field = said["License"].strip() if "License" in said else ""
    if field and "\n" not in field and field != "UNKNOWN":
        return _BY_FIELD.get(field, field)
    words = [str(line).rpartition("::")[2].strip() for line in said.get_all("Classifier") or [] if "License ::" in line]
    return " OR ".join(_BY_CLASSIFIER.get(word, word) for word in words)


def page() -> str:
    """docs/licences.md."""
    rows = "".join(f"| {name} | {licence_of(name)} |\n" for name in needed())
    return f"""<!-- Written by `make licences`. -->
# Licences

The operator is under the [Apache License 2.0](../LICENSE). What its image holds of Python packages, and under
which licence each says it is. llama.cpp is in images of its own.

| package | licence |
|---|---|
{rows}"""


def _closure(name: str, *, extras: frozenset[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    for line in requires(name) or ():
        wanted = Requirement(line)
        marked = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        key = (canonicalize_name(wanted.name), ",".join(sorted(wanted.extras)))
        if not marked or key in seen:
            continue
        seen.add(key)
        try:
            distribution(key[0])
        except PackageNotFoundError:
            continue  # what is for another platform
        yield key[0]
        yield from _closure(key[0], extras=frozenset(wanted.extras), seen=seen)
