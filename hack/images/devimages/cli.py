"""The command line: parse, call, print; progress goes to stderr, results to stdout."""

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from .archive import differences, digest_of
from .build import Builder, BuiltImage, build_images, find_image
from .buildah import BuildahBuilder
from .cache import Cache, cache_from_environment
from .docker import DockerBuilder, remove_docker_images
from .errors import ImagesError
from .preflight import require_builder, this_machine
from .recipes import OPERATOR, RECIPES, Recipe, image_name
from .steps import Steps

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[3]
_INTERRUPTED = 130
_SHOWN = 40
"""Lines of what differs between two builds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    cache = cache_from_environment()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        match options.verb:
            case "build":
                _build(options, cache=cache)
            case "reproduce":
                return _reproduce(cache)
            case "names":
                _names(options)
            case _:
                _clean(cache)
    except (ImagesError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _build(options: argparse.Namespace, *, cache: Cache) -> None:
    recipes = _recipes(options.image)
    found = [find_image(recipe, root=_ROOT, suffix=options.name_suffix, cache=cache) for recipe in recipes]
    images = [image for image in found if image is not None]
    if len(images) < len(recipes):
        kind = require_builder(this_machine())
        with cache.locked(waiting=lambda: print("waiting for another build", file=sys.stderr)) as lock:
            steps = Steps(logs=cache.logs, lock=lock)
            builder = _builder(kind, cache=cache, steps=steps)
            images = build_images(
                recipes, root=_ROOT, suffix=options.name_suffix, cache=cache, builder=builder, steps=steps
            )
    if options.output == "json":
        print(json.dumps([_as_json(image) for image in images], indent=2))
    else:
        for image in images:
            print(f"{image.image}\t{image.archive}\t{'built' if image.built else 'unchanged'}")


def _builder(kind: str, *, cache: Cache, steps: Steps) -> Builder:
    if kind == "docker":
        return DockerBuilder(root=_ROOT, steps=steps)
    return BuildahBuilder(root=_ROOT, cache=cache, steps=steps)


def _reproduce(cache: Cache) -> int:
    """Builds the operator's image twice, each step anew, and compares; 1 where the two differ.

    Only by buildah: `docker save` keeps the times of the files.
    """
    require_builder(dataclasses.replace(this_machine(), docker="not for this"))
    with cache.locked(waiting=lambda: print("waiting for another build", file=sys.stderr)) as lock:
        steps = Steps(logs=cache.logs, lock=lock)
        builder = BuildahBuilder(root=_ROOT, cache=cache, steps=steps, reuse_layers=False)
        archives = [cache.root / f"reproduced-{number}.tar" for number in (1, 2)]
        try:
            for archive in archives:
                archive.unlink(missing_ok=True)
                builder.build(OPERATOR, image=image_name(OPERATOR, root=_ROOT), archive=archive)
            digests = [digest_of(archive) for archive in archives]
            different = differences(*archives)
        finally:
            for archive in archives:
                archive.unlink(missing_ok=True)
    if digests[0] != digests[1]:
        lines = "\n".join(f"  {line}" for line in different[:_SHOWN])
        print(f"error: two builds of the same source differ, {digests[0]} and {digests[1]}:\n{lines}", file=sys.stderr)
        return 1
    print(f"both builds gave {digests[0]}")
    return 0


def _names(options: argparse.Namespace) -> None:
    names = {
        recipe.name: image_name(recipe, root=_ROOT, suffix=options.name_suffix) for recipe in _recipes(options.image)
    }
    if options.output == "json":
        print(json.dumps(names))
    else:
        for name, image in names.items():
            print(f"{name}\t{image}")


def _clean(cache: Cache) -> None:
    if cache.root.exists():
        with cache.locked(waiting=lambda: print("waiting for a build to end", file=sys.stderr)):
            cache.remove()
        print(f"{cache.root}: emptied", file=sys.stderr)
    removed = remove_docker_images()
    if removed:
        print(f"docker: {removed} images removed", file=sys.stderr)


def _recipes(names: Sequence[str]) -> list[Recipe]:
    return [recipe for name, recipe in RECIPES.items() if not names or name in names]


def _recipe_name(text: str) -> str:
    if text not in RECIPES:
        raise argparse.ArgumentTypeError(f"there is no image {text!r}, only {' and '.join(RECIPES)}")
    return text


def _as_json(image: BuiltImage) -> dict[str, str | bool]:
    return {
        "image": image.image,
        "archive": str(image.archive),
        "digest": image.digest,
        "built": image.built,
    }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 hack/images", description="Container images of the local cluster.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    selection = argparse.ArgumentParser(add_help=False)
    listed = " or ".join(RECIPES)
    selection.add_argument(
        "image", nargs="*", type=_recipe_name, metavar="IMAGE", help=f"{listed}; both if none is named"
    )
    selection.add_argument("--name-suffix", default="", metavar="SUFFIX", help="appended to the repository's name")
    selection.add_argument("-o", "--output", choices=["text", "json"], default="text")
    verbs.add_parser("build", parents=[selection], help="build what changed, print names and archives")
    verbs.add_parser("names", parents=[selection], help="print the names that a build would give")
    verbs.add_parser("reproduce", help="build the operator twice, from nothing, and fail where the digests differ")
    verbs.add_parser("clean", help="delete archives, logs, storage and images made here")
    return parser
