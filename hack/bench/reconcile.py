"""Entry point of `uv run python hack/bench/reconcile.py`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/bench needs Python 3.11 or newer")

from reconcilebench.cli import main

if __name__ == "__main__":
    sys.exit(main())
