"""Licences of what the image holds: each is one that may be passed on with it, and docs/licences.md lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from licencelist import licence_of, needed

PAGE = Path(__file__).parents[2] / "docs" / "licences.md"
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "PSF-2.0",
}
"""Permissive ones, and MPL-2.0, which is about its own files. BSD: which one, the package does not say."""


def allowed(licence: str) -> bool:
    """Whether all licences of an expression are allowed, so that nobody has to choose."""
    words = set(re.findall(r"[^\s()]+", licence)) - {"AND", "OR"}
    return bool(words) and words <= ALLOWED


@pytest.mark.parametrize("package", needed())
def test_a_package_of_the_image_may_be_passed_on(package: str) -> None:
    assert allowed(licence_of(package)), f"{package}: {licence_of(package) or 'says no licence'}"


@pytest.mark.parametrize("licence", ["", "GPL-3.0-only", "MIT AND AGPL-3.0-only", "Copyright 2023 Somebody"])
def test_others_are_noticed(licence: str) -> None:
    assert not allowed(licence)


def test_all_of_them_are_listed() -> None:
    listed = set(re.findall(r"^\| (\S+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    found = {(package, licence_of(package)) for package in needed()}

    assert {"aiohttp", "kopf", "pydantic-core"} <= {package for package, _ in found}
    assert found <= listed, "make licences"
