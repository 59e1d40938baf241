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

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("llamamodel_operator."),
        }
        if (model := getattr(record, "model", None)) is not None:
            line["model"] = model
        if (fields := getattr(record, "fields", None)) is None:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for name, value in (fields or {}).items():
            if value is not None:
                line[name] = value
        return orjson.dumps(line).decode()

    def _time(self, created: float) -> str:
        """In UTC with milliseconds; all but these is made once in a second."""
        whole = int(created)
        second, text = self._second
        if second != whole:
            text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (whole, text)
        return f"{text}.{int((created - whole) * 1e3):03d}+00:00"


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
