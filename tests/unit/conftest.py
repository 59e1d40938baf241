"""What all unit tests share: async tests on a clock of their own, golden files, steady property tests."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .builders import NOON
from .fake_cluster import FakeCluster
from .virtual_time import VirtualTimeLoop

GOLDEN = Path(__file__).parent / "golden"

# The machines that run this are shared and slow at times: no deadline per example, the same examples every time.
settings.register_profile("unit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "fuzz", deadline=None, max_examples=100_000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden",
        action="store_true",
        help="write the golden files of tests/unit/golden anew instead of comparing; review them with git diff",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: runs on the real clock, for tests that use sockets")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs `async def` tests. Their clock is virtual: a sleep of an hour takes no time and ends after an hour."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in wanted}
    real = pyfuncitem.get_closest_marker("real_time") is not None
    with asyncio.Runner(loop_factory=None if real else VirtualTimeLoop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Compares a value with `golden/<name>.json`.

    `uv run pytest tests/unit --renew-golden` writes the files anew; `git diff tests/unit/golden` shows what changed.
    """
    renew = bool(request.config.getoption("--renew-golden", default=False))

    def compare(name: str, value: object) -> None:
        file = GOLDEN / f"{name}.json"
        if renew:
            file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        assert file.exists(), f"{file.name} is missing: uv run pytest tests/unit --renew-golden"
        assert json.loads(file.read_text(encoding="utf-8")) == json.loads(json.dumps(value))

    return compare


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def noon() -> datetime:
    return NOON
