"""Log lines: one JSON object each for machines, one coloured line each for people."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

__all__ = ["configure_logging"]

_COLORS = {
    logging.DEBUG: "\033[2m",
    logging.WARNING: "\033[33m",
    logging.ERROR: "\033[31m",
    logging.CRITICAL: "\033[31m",
}
_RESET = "\033[0m"


class _Json(logging.Formatter):
    """What a record has as `fields` stands in the place of its message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("llamamodel_operator."),
            "model": getattr(record, "model", None),
            "message": record.getMessage() if fields is None else None,
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
            **(fields or {}),
        }
        return orjson.dumps({key: value for key, value in line.items() if value is not None}).decode()


class _Text(logging.Formatter):
    def __init__(self, *, colored: bool) -> None:
        super().__init__()
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        model = f"{record.model}: " if hasattr(record, "model") else ""
        line = f"{time} {record.levelname:<7} {model}{record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        color = _COLORS.get(record.levelno) if self._colored else None
        return f"{color}{line}{_RESET}" if color else line


def configure_logging(*, log_format: Literal["auto", "text", "json"], level: str, stream: TextIO = sys.stderr) -> None:
    """Sets the process's logging up. Kopf's own chatter is kept to what an admin must know."""
    people = log_format == "text" or (log_format == "auto" and stream.isatty())
    colored = people and stream.isatty() and "NO_COLOR" not in os.environ
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text(colored=colored) if people else _Json())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # No line says which: they would be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("kopf").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.INFO)
