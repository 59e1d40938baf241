"""Generates the parts of the chart that follow from other files; `python3 hack/chart --help` says which."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/chart needs Python 3.11 or newer")

from chartgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
