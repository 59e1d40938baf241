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
    fields: dict[str, Any] = {"request_id": exchange.request_id}
    if exchange.trace_id:
        fields["trace_id"] = exchange.trace_id
    if exchange.client:
        fields["client"] = exchange.client
    if exchange.key:
        fields["key"] = exchange.key
    if exchange.path:
        fields |= {"method": exchange.method, "path": _path(exchange.path)}
    if exchange.model is not None:
        fields["model"] = exchange.model.full_name
    if exchange.adapter:
        fields["adapter"] = exchange.adapter
    if exchange.pod:
        fields |= {"pod": exchange.pod, "why": exchange.why}
    fields["status"] = exchange.status
    if exchange.gone:
        fields["code"] = "client_gone"
    elif exchange.error is not None and exchange.error.code is not None:
        fields["code"] = exchange.error.code
    fields["stream"] = exchange.events
    if exchange.pieces:
        fields["first_sec"] = round(exchange.first_piece - exchange.received, 4)
    fields["seconds"] = round(exchange.ended - exchange.started, 4)
    tokens = exchange.tokens
    if tokens.prompt is not None:
        fields["prompt_tokens"] = tokens.prompt
    if tokens.cached is not None:
        fields["cached_tokens"] = tokens.cached
    if tokens.completion is not None:
        fields["completion_tokens"] = tokens.completion
    fields["bytes"] = exchange.bytes_out
    if exchange.retries:
        fields["retries"] = exchange.retries
    if exchange.waited_sec:
        fields["waited_sec"] = round(exchange.waited_sec, 3)
    return fields


def _path(path: str) -> str:
    """What a client wrote, so that no terminal and no reader of JSON stumbles over it."""
    path = bounded(path, longest=_LONGEST_PATH)
    return path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
