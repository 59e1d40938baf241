#!/usr/bin/env python3
"""`kubectl llamamodel` from an archive that krew unpacked: finds the modules beside it that this Python can load."""

# Read by any Python 3, so that one that is too old says so.

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
VERSION = "python{}.{}".format(*sys.version_info[:2])


def main():
    lib = os.path.join(HERE, "lib")  # noqa: PTH118
    built_for = sorted(
        (name for name in os.listdir(lib) if name.startswith("python")),  # noqa: PTH208
        key=lambda name: int(name.rpartition(".")[2]),
    )
    if VERSION not in built_for:
        sys.exit(
            "kubectl llamamodel: this archive is for {}, and python3 on PATH is {} ({}). Put one of them first on "
            "PATH, or install the command line with pip.".format(", ".join(built_for), VERSION, sys.executable)
        )
    sys.path[:0] = [os.path.join(lib, VERSION), os.path.join(lib, "common")]  # noqa: PTH118
    from llamamodel_operator.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
