"""The command line: parse, call, print; progress goes to stderr, paths to stdout."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from devservers.debian import mirrors_from_environment
from devservers.errors import ServersError
from devservers.fetch import Cache, cache_from_environment
from devservers.pins import SERVERS

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    cache = Cache(folder=cache_from_environment(), mirrors=mirrors_from_environment(), say=say)
    try:
        match options.verb:
            case "fetch":
                for name in options.build or SERVERS:
                    print(cache.fetch(SERVERS[name]))
            case "list":
                for name, server in SERVERS.items():
                    print(f"{name}\t{'fetched' if cache.path(server) else '-'}\t{server.computes}")
            case _:
                return _path(cache, options.build)
    except (ServersError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _path(cache: Cache, name: str) -> int:
    server = SERVERS[name]
    if path := cache.path(server):
        print(path)
        return 0
    other = cache.instead(server)
    if other is not None:
        raise ServersError(f"{name}: Debian has it no more; fetched instead: {cache.folder / f'b{other}'}")
    raise ServersError(f"{name} is not there; run `python3 hack/servers fetch {name}`")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 hack/servers", description="Real llama-server builds, for tests.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    fetching = verbs.add_parser("fetch", help="download builds once; print the commands that start them")
    fetching.add_argument("build", nargs="*", type=_name, metavar="BUILD", help=f"{', '.join(SERVERS)}; default: all")
    verbs.add_parser("list", help="which builds there are")
    asking = verbs.add_parser("path", help="print the command that starts a fetched build")
    asking.add_argument("build", type=_name, metavar="BUILD")
    return parser


def _name(text: str) -> str:
    if text not in SERVERS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(SERVERS)}, found {text!r}")
    return text
