"""Builds what is not built yet: same inputs, same name, nothing to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .archive import digest_of
from .cache import Cache
from .errors import ImagesError
from .recipes import Recipe, image_name
from .steps import Steps

__all__ = ["Builder", "BuiltImage", "build_images", "find_image"]

_ATTEMPTS = 3


class Builder(Protocol):
    """Turns a recipe into an archive file."""

    def build(self, recipe: Recipe, *, image: str, archive: Path) -> None: ...


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """What a build hands back."""

    image: str
    archive: Path
    digest: str
    built: bool
    """False when it was there already."""


def build_images(
    recipes: Sequence[Recipe], *, root: Path, suffix: str, cache: Cache, builder: Builder, steps: Steps
) -> list[BuiltImage]:
    """Builds each recipe whose archive is missing. The caller holds the cache's lock."""
    results = []
    for recipe in recipes:
        ready = find_image(recipe, root=root, suffix=suffix, cache=cache)
        if ready is None:
            ready = _build(recipe, root=root, suffix=suffix, cache=cache, builder=builder, steps=steps)
            steps.say(f"{recipe.name}: {ready.image}, {ready.archive.stat().st_size / 1e6:.0f} MB")
        results.append(ready)
    return results


def find_image(recipe: Recipe, *, root: Path, suffix: str, cache: Cache) -> BuiltImage | None:
    """The image if its archive exists; that also marks it as used."""
    image = image_name(recipe, root=root, suffix=suffix)
    archive = cache.archive(image=image)
    if not archive.exists():
        return None
    archive.touch()
    return BuiltImage(image=image, archive=archive, digest=digest_of(archive), built=False)


def _build(recipe: Recipe, *, root: Path, suffix: str, cache: Cache, builder: Builder, steps: Steps) -> BuiltImage:
    for _ in range(_ATTEMPTS):
        image = image_name(recipe, root=root, suffix=suffix)
        archive = cache.archive(image=image)
        unfinished = archive.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        builder.build(recipe, image=image, archive=unfinished)
        if image_name(recipe, root=root, suffix=suffix) == image:
            digest = digest_of(unfinished)
            unfinished.replace(archive)
            cache.prune_archives(keep=archive)
            return BuiltImage(image=image, archive=archive, digest=digest, built=True)
        unfinished.unlink()
        steps.say(f"{recipe.name}: its source changed during the build; building again")
    raise ImagesError(f"{recipe.name}: its source changed during each of {_ATTEMPTS} builds; build it when it rests")
