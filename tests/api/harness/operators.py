"""Several operators, all of them ended at the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from .cluster import Cluster
from .process import OperatorProcess

__all__ = ["Operators"]

_leases = itertools.count(1)


class Operators:
    """Makes operators, by default each with a lease of its own, so that none waits for one that was killed."""

    def __init__(self, *, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._made: list[OperatorProcess] = []

    def make(
        self, name: str, *, kubeconfig: Path | None = None, program: Sequence[str] = (), **settings: object
    ) -> OperatorProcess:
        """An operator that is not started yet."""
        settings = {"lease_name": f"lease-{next(_leases)}", **settings}
        operator = OperatorProcess(
            kubeconfig=kubeconfig or self._cluster.kubeconfig,
            log=self._folder / f"{name}.log",
            settings=settings,
            program=program,
        )
        self._made.append(operator)
        return operator

    def __iter__(self) -> Iterator[OperatorProcess]:
        return iter(self._made)

    def __enter__(self) -> Operators:
        return self

    def __exit__(self, *_: object) -> None:
        for operator in self._made:
            operator.end()
