"""Generates docs/reference from the types, the catalogues and the settings; `python hack/reference --help` says how."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/reference needs Python 3.11 or newer")

from referencegen.cli import main

if __name__ == "__main__":
    sys.exit(main())
