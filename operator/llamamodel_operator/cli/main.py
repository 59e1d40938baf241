"""`llamamodel`, and `kubectl llamamodel`: runs a command, and ends quietly whatever happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import click

from llamamodel_operator.cli.commands import COMPLETE_VARIABLE, cli
from llamamodel_operator.cli.exit_codes import UNREADABLE

__all__ = ["main", "run"]

_INTERRUPTED = 130
"""As shells say it: 128 and the number of the signal."""

_TRACEBACK_VARIABLE = "LLAMAMODEL_TRACEBACK"

# nobody's plugins change the types, and looking for them takes 15 ms of each start
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Entry point of both programs."""
    sys.exit(run(sys.argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command line and gives its exit code. No exception gets out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no UTF-8 is no reason to fail
    name = "kubectl llamamodel" if Path(argv[0]).name.startswith("kubectl-") else "llamamodel"
    try:
        code = cli.main(list(argv[1:]), prog_name=name, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return UNREADABLE
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        # whoever read it has enough; what is still in the buffer must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sys.stderr.write(f"llamamodel: {error}\n")
        return UNREADABLE
    except Exception as error:
        if os.environ.get(_TRACEBACK_VARIABLE):
            import traceback

            traceback.print_exc()
        sys.stderr.write(
            f"llamamodel: this should not happen: {type(error).__name__}: {' '.join(str(error).split())[:500]}\n"
            f"Please report it, with what {_TRACEBACK_VARIABLE}=1 prints.\n"
        )
        return UNREADABLE
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
