"""Prometheus metrics of the gateway, `llamamodel_gateway_…`: of models that there are, and no others.

What a client makes up (names of models, paths) makes no series, and those of a LlamaModel or a pod that is gone are
removed when metrics are next read.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Collection
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from llamamodel_operator.core.gateway.known_texts import KNOWN_TEXTS
from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.forwarding import TASKS

__all__ = ["GatewayMetrics"]

_PREFIX = "llamamodel_gateway"
_MODEL = ("namespace", "model")
_FIRST_TOKEN_SEC = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN_TOKENS_SEC = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)
_REQUEST_SEC = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_WAIT_SEC = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_ENDPOINTS = frozenset((*TASKS, "/v1/models"))
_CODES = frozenset(known.code or "" for known in KNOWN_TEXTS) | {""}
_OTHER = "other"
_NO_MODEL = ("", "")

Key = tuple[str, str]


class GatewayMetrics(Collector):
    """Counts requests that have ended; what is now is read whenever somebody asks."""

    def __init__(self, *, registry: CollectorRegistry, directory: Directory, running: Collection[Exchange]) -> None:
        """`running`: requests that have not ended, as they are whenever it is read."""
        self._directory = directory
        self._running = running
        registry.register(self)  # first of all: it removes what the others need not show any more
        self._of_models: list[MetricWrapperBase] = []

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(f"{_PREFIX}_{name}", text, [*_MODEL, *labels], registry=registry)
            self._of_models.append(made)
            return made

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(f"{_PREFIX}_{name}", text, _MODEL, buckets=buckets, registry=registry)
            self._of_models.append(made)
            return made

        self.requests = counter("requests", "Requests that have ended", "endpoint", "status", "code")
        self.first_token = histogram(
            "time_to_first_token_seconds",
            "From the last byte of a request to the first piece of its answer",
            _FIRST_TOKEN_SEC,
        )
        self.between_tokens = histogram(
            "time_between_tokens_seconds",
            "Between the tokens of a stream, on its average",
            _BETWEEN_TOKENS_SEC,
        )
        self.request = histogram("request_seconds", "Duration of a request", _REQUEST_SEC)
        self.waits = histogram("wait_seconds", "How long requests waited for a model", _WAIT_SEC)
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts, those from a cache included")
        self.cached_tokens = counter("cached_prompt_tokens", "Tokens of prompts that a KV cache had already")
        self.completion_tokens = counter("completion_tokens", "Tokens that were generated")
        self.retries = counter("retries", "How often requests were sent again")
        self.translated = counter("translated_errors", "Errors of llama-server that were translated", "code")
        self.picks = counter("picks", "Pods that were picked, and why", "pod", "why")
        self._kept: dict[Key, _OfModel] = {}

    def count(self, exchange: Exchange) -> None:
        """A request that has ended."""
        key = _key(exchange.model)
        of_model = self._kept.get(key)
        if of_model is None:
            of_model = self._kept[key] = _OfModel(self, key)
        of_model.count(exchange)

    def collect(self) -> list[GaugeMetricFamily]:
        """What is now, for prometheus_client."""
        known = {_key(model): model for _, model in self._directory.routes.models()}
        self._forget_but(known)
        in_flight = GaugeMetricFamily(
            f"{_PREFIX}_requests_in_flight", "Requests that have not ended", labels=list(_MODEL)
        )
        numbers = Counts(_key(exchange.model) for exchange in self._running)
        for key in sorted(known.keys() | numbers.keys()):
            in_flight.add_metric(list(key), numbers[key])
        return [
            in_flight,
            GaugeMetricFamily(f"{_PREFIX}_models", "LlamaModels that can be routed to", value=len(known)),
            GaugeMetricFamily(
                f"{_PREFIX}_synced",
                "1 once LlamaModels and their pods have been read",
                value=float(self._directory.problem() is None),
            ),
        ]

    def _forget_but(self, known: dict[Key, ServedModel]) -> None:
        for key in self._kept.keys() - known.keys() - {_NO_MODEL}:
            del self._kept[key]
            labels = dict(zip(_MODEL, key, strict=True))
            for metric in self._of_models:
                metric.remove_by_labels(labels)
        for key, of_model in self._kept.items():
            pods = self._directory.addresses(known[key]) if key in known else ()
            for pod, why in [pick for pick in of_model.picks if pick[0] not in pods]:
                del of_model.picks[pod, why]
                self.picks.remove(*key, pod, why)


class _OfModel:
    """The series of one model: looked up once, as that takes longer than to count."""

    def __init__(self, metrics: GatewayMetrics, key: Key) -> None:
        self._metrics = metrics
        self._key = key
        self._requests: dict[tuple[str, int, str], Counter] = {}
        self.picks: dict[tuple[str, str], Counter] = {}
        if key == _NO_MODEL:
            return  # such a request has nothing but its error
        self._first_token = metrics.first_token.labels(*key)
        self._between_tokens = metrics.between_tokens.labels(*key)
        self._request = metrics.request.labels(*key)
        self._waits = metrics.waits.labels(*key)
        self._retries = metrics.retries.labels(*key)
        self._prompt = metrics.prompt_tokens.labels(*key)
        self._cached = metrics.cached_tokens.labels(*key)
        self._completion = metrics.completion_tokens.labels(*key)

    def count(self, exchange: Exchange) -> None:
        metrics = self._metrics
        outcome = (_endpoint(exchange.path), exchange.status, _code(exchange))
        counter = self._requests.get(outcome)
        if counter is None:
            endpoint, status, code = outcome
            counter = self._requests[outcome] = metrics.requests.labels(*self._key, endpoint, str(status), code)
        counter.inc()
        if exchange.model is None:
            return
        if exchange.pod:
            pick = (exchange.pod, exchange.why)
            counter = self.picks.get(pick)
            if counter is None:
                counter = self.picks[pick] = metrics.picks.labels(*self._key, *pick)
            counter.inc()
        if exchange.retries:
            self._retries.inc(exchange.retries)
        if exchange.waited_sec:
            self._waits.observe(exchange.waited_sec)
        if exchange.translated is not None:
            metrics.translated.labels(*self._key, _known(exchange.translated.code)).inc()
        if exchange.pieces and exchange.status < HTTPStatus.BAD_REQUEST:
            self._count_answer(exchange)

    def _count_answer(self, exchange: Exchange) -> None:
        tokens = exchange.tokens
        self._first_token.observe(exchange.first_piece - exchange.received)
        if not exchange.gone and exchange.error is None:
            self._request.observe(exchange.ended - exchange.started)
        between = (tokens.completion or exchange.pieces) - 1
        if exchange.events and between > 0:
            self._between_tokens.observe((exchange.last_piece - exchange.first_piece) / between)
        for counter, number in (
            (self._prompt, tokens.prompt),
            (self._cached, tokens.cached),
            (self._completion, tokens.completion),
        ):
            if number:
                counter.inc(number)


def _key(model: ServedModel | None) -> Key:
    return _NO_MODEL if model is None else (model.namespace, model.name)


def _endpoint(path: str) -> str:
    return path if path in _ENDPOINTS else _OTHER


def _known(code: str | None) -> str:
    """A code that the table of known texts has: a server's own could be any."""
    return (code or "") if (code or "") in _CODES else _OTHER


def _code(exchange: Exchange) -> str:
    error = exchange.error
    if error is None:
        return "client_gone" if exchange.gone else ""
    return _known(error.code) if error is exchange.translated else error.code or ""
