"""Work that goes on while a test does something else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["meanwhile"]

T = TypeVar("T")


@contextmanager
def meanwhile(work: Callable[[], T], *, head_start_sec: float) -> Iterator[Callable[[], T]]:
    """Does the work in a thread; entered so much later, and left when it has ended.

    Yields what waits for its outcome: what it returned, or the error that it raised.
    """
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        time.sleep(head_start_sec)
        yield working.result
