"""What each image is made from, and the name that follows from it."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENGINE", "OPERATOR", "RECIPES", "BaseRoot", "Recipe", "image_name", "input_hash"]


@dataclass(frozen=True, kw_only=True)
class BaseRoot:
    """A Debian root file system, the base image where no registry is reachable."""

    suite: str
    packages: tuple[str, ...] = ()
    """Installed on top of debootstrap's variant `minbase`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image; every field but `context` takes part in its name."""

    name: str
    """What the command line calls it."""
    repository: str
    dockerfile: str
    """Path from the repository's root."""
    context: str
    """The build context's path from the repository's root."""
    inputs: tuple[str, ...] = ()
    """Files and folders that decide what the image does, from the repository's root."""
    base: BaseRoot
    """Stands in for the Dockerfile's own base (its argument BASE_IMAGE) when buildah builds."""


OPERATOR = Recipe(
    name="operator",
    repository="localhost/llamamodel-operator",
    dockerfile="Dockerfile",
    context=".",
    # README.md and LICENSE go into the package's metadata and change nothing that runs: not listed, so that
    # an edited page of documentation does not roll the operator.
    inputs=(".dockerignore", "Dockerfile", "pyproject.toml", "uv.lock", "operator"),
    base=BaseRoot(suite="trixie", packages=("python3", "python3-venv")),
)

ENGINE = Recipe(
    name="engine",
    repository="localhost/llama-server",
    dockerfile="hack/images/engine/Dockerfile",
    context="hack/images/engine",
    inputs=("hack/images/engine/Dockerfile",),
    base=BaseRoot(suite="sid"),
)

RECIPES = {recipe.name: recipe for recipe in (OPERATOR, ENGINE)}

_NEVER_INPUTS = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def image_name(recipe: Recipe, *, root: Path, suffix: str = "") -> str:
    """`localhost/llamamodel-operator<suffix>:dev-<hash12>`; the tag changes with the inputs."""
    return f"{recipe.repository}{suffix}:dev-{input_hash(recipe, root=root)[:12]}"


def input_hash(recipe: Recipe, *, root: Path) -> str:
    """SHA-256, in hex, over the recipe and the paths, modes and contents of its inputs.

    A file that is missing counts as missing; the build reports it.
    """
    digest = hashlib.sha256()
    described = (recipe.name, recipe.dockerfile, recipe.base.suite, *recipe.base.packages)
    digest.update("\0".join(described).encode())
    for path in sorted(path for start in recipe.inputs for path in _files(root / start)):
        executable = "x" if os.access(path, os.X_OK) else "-"
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{executable}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def base_hash(base: BaseRoot) -> str:
    """Names the base image, 12 hex digits."""
    return hashlib.sha256("\0".join((base.suite, *base.packages)).encode()).hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for child in path.iterdir():
            if child.name not in _NEVER_INPUTS and child.suffix != ".pyc":
                yield from _files(child)
