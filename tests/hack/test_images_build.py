"""Builds happen once per content, leave whole archives only, and keep the cache small."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from devimages.archive import digest_of
from devimages.build import BuiltImage, build_images
from devimages.cache import KEPT_ARCHIVES, Cache
from devimages.errors import ImagesError
from devimages.recipes import BaseRoot, Recipe
from devimages.steps import Steps


def write_archive(path: Path, *, members: dict[str, object]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@dataclass
class FakeBuilder:
    during: Callable[[], None] = lambda: None
    images: list[str] = field(default_factory=list)

    def build(self, recipe: Recipe, *, image: str, archive: Path) -> None:
        self.images.append(image)
        write_archive(archive, members={"index.json": {"manifests": [{"digest": f"sha256:{image[-12:]}"}]}})
        self.during()


@dataclass
class Workplace:
    """A checkout with one recipe, and a cache."""

    root: Path
    cache: Cache
    builder: FakeBuilder
    said: list[str]
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            name="thing",
            repository="localhost/thing",
            dockerfile="Dockerfile",
            context=".",
            inputs=("source",),
            base=BaseRoot(suite="sid"),
        )
    )

    def edit(self, content: str) -> None:
        (self.root / "source").write_text(content)

    def build(self, *, suffix: str = "") -> BuiltImage:
        steps = Steps(logs=self.cache.logs, lock=0, say_line=self.said.append)
        (image,) = build_images(
            [self.recipe], root=self.root, suffix=suffix, cache=self.cache, builder=self.builder, steps=steps
        )
        return image


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "cache").mkdir()
    place = Workplace(root=tmp_path / "checkout", cache=Cache(root=tmp_path / "cache"), builder=FakeBuilder(), said=[])
    place.edit("one")
    return place


def test_the_second_build_of_the_same_source_does_nothing(workplace: Workplace) -> None:
    first, second = workplace.build(), workplace.build()
    assert (first.built, second.built) == (True, False)
    assert (first.image, first.archive, first.digest) == (second.image, second.archive, second.digest)
    assert len(workplace.builder.images) == 1


def test_going_back_to_an_earlier_source_builds_nothing(workplace: Workplace) -> None:
    workplace.build()
    workplace.edit("two")
    assert workplace.build().built
    workplace.edit("one")
    assert not workplace.build().built


def test_an_interrupted_build_leaves_no_archive_and_can_be_run_again(workplace: Workplace) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workplace.builder.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        workplace.build()
    assert not list(workplace.cache.root.glob("*.tar"))
    workplace.builder.during = lambda: None
    assert workplace.build().built


def test_a_source_that_changes_during_the_build_is_built_again_under_its_new_name(workplace: Workplace) -> None:
    workplace.builder.during = lambda: workplace.edit("two")
    image = workplace.build()
    assert workplace.builder.images[-1] == image.image
    assert len(set(workplace.builder.images)) == 2
    assert any("its source changed during the build" in line for line in workplace.said)


def test_a_source_that_never_rests_is_an_error_and_no_image(workplace: Workplace) -> None:
    versions = iter(range(100))
    workplace.builder.during = lambda: workplace.edit(str(next(versions)))
    with pytest.raises(ImagesError, match="changed during each of 3 builds"):
        workplace.build()
    assert not list(workplace.cache.root.glob("*.tar"))


def test_the_archives_used_last_are_kept_and_those_of_others_are_left_alone(workplace: Workplace) -> None:
    other = workplace.cache.root / "other-dev-0123456789ab.tar"
    other.touch()
    suffixed = workplace.build(suffix="-ci").archive
    archives = []
    for number in range(KEPT_ARCHIVES + 2):
        workplace.edit(str(number))
        archives.append(workplace.build().archive)
        os.utime(archives[-1], (number, number))
    left = {path for path in archives if path.exists()}
    assert left == set(archives[-KEPT_ARCHIVES:])
    assert other.exists()
    assert suffixed.exists()


def test_the_digest_is_the_manifests_in_an_oci_archive(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    members: dict[str, object] = {"index.json": {"manifests": [{"digest": "sha256:abc"}]}, "manifest.json": []}
    write_archive(archive, members=members)
    assert digest_of(archive) == "sha256:abc"


def test_the_digest_is_the_configurations_in_an_archive_of_an_old_docker(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_archive(archive, members={"manifest.json": [{"Config": "0a1b.json"}]})
    assert digest_of(archive) == "sha256:0a1b"


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100], ids=["empty", "garbage"])
def test_a_file_that_is_no_archive_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(content)
    with pytest.raises(ImagesError, match=r"image\.tar .*Delete it and build again"):
        digest_of(archive)
