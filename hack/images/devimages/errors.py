"""The errors that end a command with a message instead of a traceback.

ImagesError              what was expected, what was found, what to do next
├── NotBuildableError    this machine lacks something; lists all of it
└── StepFailedError      a tool failed; carries the end of its log
"""

from collections.abc import Sequence
from pathlib import Path


class ImagesError(Exception):
    """Something the user can read and act upon."""


class NotBuildableError(ImagesError):
    """No image can be built on this machine as it is."""

    def __init__(self, *, docker: str, missing: Sequence[str]) -> None:
        lines = "\n".join(f"  - {item}" for item in missing)
        super().__init__(
            "no image can be built here. One of two ways is needed:\n"
            f"  1. a Docker daemon; {docker}\n"
            f"  2. buildah, as root, on Linux; it lacks:\n{lines}"
        )


class StepFailedError(ImagesError):
    """A tool ended with an exit status other than 0."""

    def __init__(self, *, title: str, status: int, log: Path, tail: Sequence[str]) -> None:
        shown = "\n".join(f"  | {line}" for line in tail)
        super().__init__(f"{title}: failed with exit status {status}. The end of its log:\n{shown}\nAll of it: {log}")
        self.status = status
