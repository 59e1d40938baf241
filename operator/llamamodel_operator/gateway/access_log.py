"""The access log: one line for each request, with nothing of what was asked or answered."""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import Any

from llamamodel_operator.core.gateway.errors import bounded
from llamamodel_operator.gateway.exchange import Exchange

__all__ = ["write_access"]

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # whether there are lines is a setting of its own
_LONGEST_PATH = 200
_EVERY_LINE = vars(_log.makeRecord(_log.name, logging.INFO, "", 0, None, (), None))


def write_access(exchange: Exchange) -> None:
    """Writes the line of a request that has ended. Its time is that of the end."""
    _log.handle(_Record(exchange))


class _Record(logging.LogRecord):
    """What `Logger.makeRecord` makes, without finding out for each line what is the same for all of them."""

    def __init__(self, exchange: Exchange) -> None:
        ended = time() - (monotonic() - exchange.ended)
        vars(self).update(_EVERY_LINE)
        self.msg = _Line(exchange)
        self.fields = _fields(exchange)
        self.created = ended
        self.msecs = ended % 1 * 1e3


class _Line:
    """For people; made where a person reads."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __str__(self) -> str:
        fields = _fields(self._exchange)
        told = [f"{name}={fields.pop(name)}" for name in ("method", "path", "status", "code") if name in fields]
        return " ".join([*told, *(f"{name}={value}" for name, value in fields.items())])


def _fields(exchange: Exchange) -> dict[str, Any]:
    """Those that say something, and always the outcome and how long it took."""
    tokens, error = exchange.tokens, exchange.error
    fields = {
        "request_id": exchange.request_id,
        "trace_id": exchange.trace_id or None,
        "client": exchange.client or None,
        "key": exchange.key or None,
        "method": exchange.method or None,
        "path": _path(exchange.path) or None,
        "model": exchange.model.full_name if exchange.model else None,
        "adapter": exchange.adapter or None,
        "pod": exchange.pod or None,
        "why": exchange.why or None,
        "status": exchange.status,
        "code": "client_gone" if exchange.gone else error.code if error else None,
        "stream": exchange.events,
        "first_sec": round(exchange.first_piece - exchange.received, 4) if exchange.pieces else None,
        "seconds": round(exchange.ended - exchange.started, 4),
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "completion_tokens": tokens.completion,
        "bytes": exchange.bytes_out,
        "retries": exchange.retries or None,
        "waited_sec": round(exchange.waited_sec, 3) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _path(path: str) -> str:
    """What a client wrote, so that no terminal and no reader of JSON stumbles over it."""
    path = bounded(path, longest=_LONGEST_PATH)
    return path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
