"""The command line: parse, call, print; progress goes to stderr, results to stdout."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from devcatalogue.errors import CatalogueError
from devcatalogue.files import FOLDER, file_of, older_than, read_all, render
from devcatalogue.make import carry_again, catalogue_of_help, catalogue_of_source, help_of
from devcatalogue.sources import SOURCES, fetch_source
from llamamodel_operator.core.engine.catalogue import Catalogue

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed with a message, or `carry --check` found a difference, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.verb == "make":
            return _make(options)
        if options.verb == "remake":
            return _remake(options.build, options.into)
        return _carry(options.into, check=options.check)
    except (CatalogueError, OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _make(options: argparse.Namespace) -> int:
    older = older_than(options.build, folder=options.into)
    catalogue: Catalogue
    if options.from_source:
        catalogue = catalogue_of_source(options.from_source, build=options.build, source=options.source, older=older)
    else:
        text = help_of(options.from_help) if options.from_help else options.help_file.read_text(encoding="utf-8")
        catalogue = catalogue_of_help(text, build=options.build, source=options.source, older=older)
    carried = sum(flag.carried for flag in catalogue.flags)
    _say(f"b{catalogue.build}: {len(catalogue.flags) - carried} flags, and {carried} that only older builds have")
    if options.stdout:
        sys.stdout.write(render(catalogue))
    else:
        path = file_of(options.build, folder=options.into)
        path.write_text(render(catalogue), encoding="utf-8")
        _say(f"{path}: written; `python3 hack/catalogue carry` brings the newer ones up to date")
    return 0


def _remake(builds: Sequence[int], folder: Path) -> int:
    catalogues = read_all(folder)
    older: Catalogue | None = None
    different = False
    for build in catalogues.builds if catalogues else ():
        shipped = catalogues.get(build) if catalogues else None
        sdist = SOURCES.get(build)
        if shipped and sdist and shipped.source == sdist.label and (not builds or build in builds):
            made = catalogue_of_source(fetch_source(sdist, say=_say), build=build, source=sdist.label, older=older)
            same = made == shipped
            different |= not same
            _say(f"b{build}: {'no difference' if same else 'differs; now as made from ' + sdist.label}")
            if not same:
                file_of(build, folder=folder).write_text(render(made), encoding="utf-8")
        older = shipped
    return int(different)


def _carry(folder: Path, *, check: bool) -> int:
    catalogues = read_all(folder)
    if catalogues is None:
        raise CatalogueError(f"{folder}: no catalogue b*.json in it")
    older: Catalogue | None = None
    different = False
    for build in catalogues.builds:
        path = file_of(build, folder=folder)
        older = carry_again(catalogues.get(build), older=older)
        if path.read_text(encoding="utf-8") == render(older):
            continue
        different = True
        if check:
            _say(f"{path}: differs; run `python3 hack/catalogue carry`")
        else:
            path.write_text(render(older), encoding="utf-8")
            _say(f"{path}: brought up to date")
    return int(check and different)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 hack/catalogue", description="Flag catalogues: what the llama-server of each build takes."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    making = verbs.add_parser("make", help="make the catalogue of one build")
    origin = making.add_mutually_exclusive_group(required=True)
    origin.add_argument("--from-help", type=Path, metavar="BINARY", help="run BINARY --help")
    origin.add_argument("--help-file", type=Path, metavar="FILE", help="read the output of --help")
    origin.add_argument("--from-source", type=Path, metavar="DIR", help="read a source tree of llama.cpp")
    making.add_argument("--build", type=int, required=True, metavar="N", help="number of the build, such as 10434")
    making.add_argument("--source", required=True, metavar="TEXT", help="where it comes from: package and version")
    making.add_argument("--stdout", action="store_true", help="print it instead of writing the file")
    carrying = verbs.add_parser("carry", help="carry on removed flags from each catalogue to the next newer one")
    carrying.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file would change")
    remaking = verbs.add_parser("remake", help="make those again that come from sources; exit status 1 if one differed")
    remaking.add_argument("build", nargs="*", type=int, metavar="N", help="default: all")
    for verb in (making, carrying, remaking):
        verb.add_argument("--into", type=Path, default=FOLDER, metavar="DIR", help="default: the operator's folder")
    return parser
