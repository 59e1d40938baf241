"""The option by which snapshots are written anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-rendered",
        action="store_true",
        help="write the snapshots in tests/chart/rendered anew instead of comparing; review them with git diff",
    )
