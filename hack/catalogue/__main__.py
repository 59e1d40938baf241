"""Entry point of `python3 hack/catalogue`."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/catalogue needs Python 3.11 or newer")

# The types are the operator's own; those modules need nothing but the standard library.
sys.path.append(str(Path(__file__).parents[2] / "operator"))

from devcatalogue.cli import main

if __name__ == "__main__":
    sys.exit(main())
