"""The command line as a kubectl plugin: `build` makes an archive for each platform, `manifest` what krew reads.

python hack/plugin build [linux-amd64 …]
python hack/plugin manifest --homepage URL --url URL-OF-THE-FOLDER-OF-ARCHIVES
python hack/plugin check      # what was built, by krew's own validation: each archive is installed
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml
from devplugin.archive import pack, sha256
from devplugin.krew import served, validate
from devplugin.manifest import NAME, archive_name, manifest
from devplugin.platforms import PLATFORMS, PYTHONS
from devplugin.tree import ROOT, gather, lock, wheel


def main() -> int:
    """Exit status: 0 done, 1 an archive that the manifest names is missing, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="hack/plugin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "plugin", metavar="FOLDER")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="make the archives")
    build.add_argument("platform", nargs="*", choices=[[], *PLATFORMS], help="all where none is named")
    verbs.add_parser("check", help="install each archive by krew's own code, from a server on this machine")
    describe = verbs.add_parser("manifest", help="write the manifest of all archives")
    describe.add_argument("--homepage", required=True)
    describe.add_argument("--url", required=True, help="where the archives can be downloaded, without their names")
    arguments = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if arguments.verb == "build":
        _build(arguments.output, version=version, platforms=arguments.platform or list(PLATFORMS))
        return 0
    if arguments.verb == "check":
        return _check(arguments.output, version=version)
    written = _describe(arguments.output, version=version, homepage=arguments.homepage, url=arguments.url)
    if written is None:
        return 1
    (arguments.output / f"{NAME}.yaml").write_text(written)
    return 0


def _build(output: Path, *, version: str, platforms: list[str]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        requirements, project = lock(Path(scratch)), wheel(Path(scratch))
        for platform in platforms:
            tree = Path(scratch) / platform
            gather(
                tree,
                platform=PLATFORMS[platform],
                pythons=PYTHONS,
                requirements=requirements,
                project=project,
            )
            archive = output / archive_name(platform, version=version)
            pack(tree, archive=archive)
            print(f"{archive}\t{archive.stat().st_size / 1e6:.1f} MB", flush=True)


def _describe(output: Path, *, version: str, homepage: str, url: str) -> str | None:
    """The manifest as YAML; None, and a message, where an archive is missing."""
    archives = {platform: output / archive_name(platform, version=version) for platform in PLATFORMS}
    missing = [str(path) for path in archives.values() if not path.is_file()]
    if missing:
        print(f"hack/plugin: run `build` first: there is no {', no '.join(missing)}", file=sys.stderr)
        return None
    sums = {platform: sha256(path) for platform, path in archives.items()}
    written = manifest(version=version, homepage=homepage, url=url, sums=sums)
    return yaml.safe_dump(written, sort_keys=False, width=120)


def _check(output: Path, *, version: str) -> int:
    with served(output) as url:
        written = _describe(output, version=version, homepage="https://llamamodel.dev", url=url)
        return 1 if written is None else validate(written, name=NAME)


if __name__ == "__main__":
    sys.exit(main())
