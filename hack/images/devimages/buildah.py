"""Builds an image with buildah, as root, from a base that debootstrap makes: no registry is needed."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import Cache
from .recipes import BaseRoot, Recipe, base_hash
from .steps import Steps

__all__ = ["BuildahBuilder"]

_MIRROR = "http://deb.debian.org/debian"
_BASE_REPOSITORY = "localhost/llamamodel-base"
_CERTIFICATES = Path("/etc/ssl/certs")

# Own mount and PID namespaces, and death with the parent: whatever ends a build, kill -9 included, its tools' mounts
# and processes end with it.
_CONTAINED = (
    *("setpriv", "--pdeathsig=KILL"),
    *("unshare", "--mount", "--propagation=private", "--pid", "--mount-proc", "--kill-child"),
)

_BASE_DOCKERFILE = """\
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""

# Kept in neither image: package files and lists, documentation, translations, logs.
_STRIPPED = (
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./dev/*",
)

_GZIP_LEVEL = "1"
"""The archive is read on this machine, once or a few times: fast matters more than small."""

_CACHES_LAYERS = {"overlay": "true", "vfs": "false"}
"""With vfs each layer is a whole copy of the file system: keeping them takes longer than building anew."""

_TIMESTAMP = "0"
"""Seconds since 1970, the time of every file and of the image: else no two builds would be the same."""

_KEPT_LAYERS = {"overlay": 60, "vfs": 4}
"""Layers in the storage before unnamed ones are dropped."""


@dataclass(kw_only=True)
class BuildahBuilder:
    """`buildah bud` with chroot isolation in a storage of our own."""

    root: Path
    cache: Cache
    steps: Steps
    reuse_layers: bool = True
    """False: every step of the Dockerfile runs, whatever was built before."""
    _driver: str = ""

    def build(self, recipe: Recipe, *, image: str, archive: Path) -> None:
        """Writes the image as an OCI archive."""
        work = self.cache.empty_work()
        self._driver = self._driver or self._choose_driver(work=work)
        self._drop_stale_containers(work=work)
        base = self._base_image(recipe.base, work=work)
        identifier = work / "image-id"
        self._buildah(
            f"{recipe.name}: build {image}",
            [
                *("bud", f"--layers={_CACHES_LAYERS[self._driver]}", "--iidfile", str(identifier)),
                *("--timestamp", _TIMESTAMP, *(() if self.reuse_layers else ("--no-cache",))),
                *("--build-arg", f"BASE_IMAGE={base}", *_host_certificates()),
                *("--file", str(self.root / recipe.dockerfile), str(self.root / recipe.context)),
            ],
            work=work,
        )
        self._buildah(
            f"{recipe.name}: write the archive",
            [
                *("push", "--quiet", "--compression-format", "gzip", "--compression-level", _GZIP_LEVEL),
                *(identifier.read_text().strip(), f"oci-archive:{archive}:{image}"),
            ],
            work=work,
        )
        self._prune_layers(work=work)
        self.cache.empty_work()

    def _base_image(self, base: BaseRoot, *, work: Path) -> str:
        """The base image's name; made on first use, which takes a minute."""
        name = f"{_BASE_REPOSITORY}:{base.suite}-{base_hash(base)}"
        if self._exists(name, work=work):
            return name
        tree = work / "root"
        include = [f"--include={','.join(base.packages)}"] if base.packages else []
        self.steps.run(
            f"base {base.suite}: debootstrap{' with ' if include else ''}{', '.join(base.packages)}",
            [
                *(*_CONTAINED, "debootstrap", "--variant=minbase", *include),
                *(base.suite, str(tree), os.environ.get("DEBIAN_MIRROR", _MIRROR)),
            ],
        )
        context = work / "base"
        context.mkdir()
        (context / "Dockerfile").write_text(_BASE_DOCKERFILE)
        excluded = [f"--exclude={pattern}" for pattern in _STRIPPED]
        self.steps.run(
            f"base {base.suite}: pack",
            ["tar", "--create", f"--file={context / 'root.tar'}", f"--directory={tree}", *excluded, "."],
        )
        self._buildah(f"base {base.suite}: image {name}", ["bud", "--tag", name, str(context)], work=work)
        shutil.rmtree(tree)
        shutil.rmtree(context)
        return name

    def _choose_driver(self, *, work: Path) -> str:
        """`overlay` where the kernel lets us; `vfs`, slower and larger, works everywhere."""
        lower, upper, inner, merged = (work / "probe" / name for name in ("lower", "upper", "inner", "merged"))
        for folder in (lower, upper, inner, merged):
            folder.mkdir(parents=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={inner}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        works = subprocess.run([*_CONTAINED, *mount], capture_output=True, check=False).returncode == 0
        shutil.rmtree(work / "probe")
        return "overlay" if works else "vfs"

    def _exists(self, name: str, *, work: Path) -> bool:
        argv = [*self._argv(work=work), "inspect", "--type=image", name]
        return subprocess.run(argv, capture_output=True, check=False, env=self._env(work=work)).returncode == 0

    def _drop_stale_containers(self, *, work: Path) -> None:
        if self._count("containers"):
            self._buildah("drop what an interrupted build left", ["rm", "--all"], work=work)

    def _prune_layers(self, *, work: Path) -> None:
        count = self._count("layers")
        if count > _KEPT_LAYERS[self._driver]:
            self._buildah(f"drop cached layers ({count})", ["rmi", "--prune", "--force"], work=work)

    def _count(self, kind: str) -> int:
        """How many `containers` or `layers` the storage has."""
        table = self.cache.storage(driver=self._driver) / f"{self._driver}-{kind}" / f"{kind}.json"
        return len(json.loads(table.read_text())) if table.exists() else 0

    def _buildah(self, title: str, arguments: Sequence[str], *, work: Path) -> None:
        self.steps.run(title, [*self._argv(work=work), *arguments], env=self._env(work=work))

    def _argv(self, *, work: Path) -> list[str]:
        storage = self.cache.storage(driver=self._driver)
        places = ("--root", str(storage), "--runroot", str(work / "run"), "--storage-driver", self._driver)
        return [*_CONTAINED, "buildah", *places]

    def _env(self, *, work: Path) -> dict[str, str]:
        return {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(work)}


def _host_certificates() -> list[str]:
    """Lets the build's downloads trust whom this machine trusts, such as a company's own authority."""
    bundle = _CERTIFICATES / "ca-certificates.crt"
    if not bundle.exists():
        return []
    return ["--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro", "--build-arg", f"SSL_CERT_FILE={bundle}"]
