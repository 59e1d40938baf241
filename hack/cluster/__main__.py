"""Entry point of ``python3 hack/cluster``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever runs this may have any version)
    sys.exit("hack/cluster needs Python 3.11 or newer")

from localcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
