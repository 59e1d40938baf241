"""The command line: parse, call, print; progress goes to stderr, the path to stdout."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from .catalogue import CATALOGUE
from .errors import ModelsError
from .fetch import cache_from_environment, fetch, remove_cache
from .pip import download

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    cache = cache_from_environment()
    try:
        match options.verb:
            case "fetch":
                model = CATALOGUE[options.model]
                print(fetch(model, into=options.into, cache=cache, download=download, say=say))
            case "list":
                for model in CATALOGUE.values():
                    print(f"{model.name}\t{model.file_name}\t{model.size_bytes / 1e6:.0f} MB\t{model.terms}")
            case _:
                remove_cache(cache)
                say(f"{cache}: emptied")
    except (ModelsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 hack/models", description="Small GGUF files to serve.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    fetching = verbs.add_parser("fetch", help="download a model once, put a checked copy into a folder")
    fetching.add_argument("model", choices=sorted(CATALOGUE))
    fetching.add_argument("--into", type=Path, metavar="DIR", help="folder for the copy; default: the cache only")
    verbs.add_parser("list", help="which models there are")
    verbs.add_parser("clean", help="delete the cache")
    return parser
