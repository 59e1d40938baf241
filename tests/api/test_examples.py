"""Every example is applied to the API server, and the operator takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .harness.bench import Bench
from .harness.cluster import REPOSITORY
from .harness.process import OperatorProcess

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def _names(file: Path) -> list[str]:
    documents = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    return [document["metadata"]["name"] for document in documents if document["kind"] == "LlamaModel"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_applied_and_accepted(bench: Bench, operator: OperatorProcess, file: Path) -> None:
    first = bench.kubectl("apply", "--filename", str(file))
    assert all(line.endswith(" created") for line in first.splitlines()), first

    for name in _names(file):
        bench.wait_for_reason(name, "Accepted", kind="Accepted")

    again = bench.kubectl("apply", "--filename", str(file))
    assert all(line.endswith(" unchanged") for line in again.splitlines()), again
