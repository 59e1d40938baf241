"""One argument as a build describes it, whether that is read from `--help` or from the source."""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Entry", "Handler"]


class Handler(Enum):
    """What the server does with the value; only the source tells."""

    INTEGER = "integer"
    FLOAT = "float"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One argument.

    Attributes:
        spellings: those that set it or turn it on, in the build's order.
        negations: those that turn it off.
        hints: one placeholder for each value, such as N or FNAME.
        text: the help text, on one line; it is read for facts and never stored.
        env: the environment variable.
        handler: how the value is read; None where only the help is known.
        appends: whether a second use adds to the first; None where only the help is known.
        ignored: whether the value goes nowhere; None where only the help is known.
    """

    spellings: tuple[str, ...]
    negations: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    text: str = ""
    env: str | None = None
    handler: Handler | None = None
    appends: bool | None = None
    ignored: bool | None = None
