"""Builds an image with a Docker daemon."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .recipes import Recipe
from .steps import Steps

__all__ = ["DockerBuilder", "remove_docker_images"]

_LABEL = "dev.llamamodel.built-by=hack-images"


@dataclass(frozen=True, kw_only=True)
class DockerBuilder:
    """`docker build`, then `docker save`; base images come from their registry."""

    root: Path
    steps: Steps

    def build(self, recipe: Recipe, *, image: str, archive: Path) -> None:
        """Writes the image to `archive`; the daemon keeps it too."""
        self.steps.run(
            f"{recipe.name}: docker build {image}",
            [
                *("docker", "build", "--progress=plain", "--label", _LABEL),
                *("--tag", image, "--file", str(self.root / recipe.dockerfile)),
                str(self.root / recipe.context),
            ],
            env={"DOCKER_BUILDKIT": "1"},
        )
        self.steps.run(f"{recipe.name}: docker save", ["docker", "save", "--output", str(archive), image])


def remove_docker_images() -> int:
    """Removes the images that `DockerBuilder` left in the daemon; returns how many."""
    if shutil.which("docker") is None:
        return 0
    listed = subprocess.run(
        ["docker", "image", "ls", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}"],
        capture_output=True,
        text=True,
        check=False,
    )
    identifiers = sorted(set(listed.stdout.split())) if listed.returncode == 0 else []
    if identifiers:
        subprocess.run(["docker", "image", "rm", "--force", *identifiers], check=False, stdout=subprocess.DEVNULL)
    return len(identifiers)
