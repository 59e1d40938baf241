"""Entry point of `python3 hack/models`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/models needs Python 3.11 or newer")

from devmodels.cli import main

if __name__ == "__main__":
    sys.exit(main())
