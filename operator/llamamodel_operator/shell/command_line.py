"""Settings from the command line and the environment, of whatever process: each imports its own alone."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsError

__all__ = ["read_settings"]

S = TypeVar("S", bound=BaseSettings)


def read_settings(kind: type[S]) -> S:
    """From the command line and the environment. Ends the process with 2, and one line, where a setting is wrong."""
    try:
        return CliApp.run(kind)
    except (ValidationError, SettingsError) as error:
        print(f"{kind.model_config.get('cli_prog_name')}: {_explain(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _explain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return "; ".join(
        f"--{'.'.join(str(part) for part in problem['loc']).replace('_', '-')}: {problem['msg']}"
        f" (found {problem['input']!r})"
        for problem in error.errors(include_url=False)
    )
