"""Entry point of `python3 hack/servers`."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/servers needs Python 3.11 or newer")

# What downloads wheels with pip is hack/models' own.
sys.path.append(str(Path(__file__).parents[1] / "models"))

from devservers.cli import main

if __name__ == "__main__":
    sys.exit(main())
