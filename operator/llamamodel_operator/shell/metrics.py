"""Prometheus metrics of the operator, `llamamodel_operator_…`; those of single LlamaModels are in `model_metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from llamamodel_operator.shell.store import CACHED, CHILDREN

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All metrics, in a registry of their own, so that a test or a second operator starts from zero."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        prefix = "llamamodel_operator"
        self.reconciles = Counter(
            f"{prefix}_reconciles", "Passes over a LlamaModel, by result", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            f"{prefix}_reconcile_seconds", "Duration of a pass", buckets=_SECONDS, registry=self.registry
        )
        self.api_writes = Counter(
            f"{prefix}_api_writes",
            "Writes to the API server, by kind, verb and HTTP status (0: no answer)",
            ["kind", "verb", "status"],
            registry=self.registry,
        )
        self.drift_repaired = Counter(
            f"{prefix}_drift_repaired",
            "Children put back after somebody changed them",
            ["kind"],
            registry=self.registry,
        )
        self.watch_events = Counter(
            f"{prefix}_watch_events", "Objects received from watches", ["resource"], registry=self.registry
        )
        self.missed_events = Counter(
            f"{prefix}_watch_missed_events",
            "Changes that a resync found and no watch had told of",
            ["resource"],
            registry=self.registry,
        )
        self.loop_lag_seconds = Gauge(
            f"{prefix}_loop_lag_seconds",
            "How late the event loop last woke a sleeper",
            registry=self.registry,
        )
        self.leader = Gauge(f"{prefix}_leader", "1 while this process holds the lease", registry=self.registry)
        self.lease_transitions = Counter(
            f"{prefix}_lease_acquired", "How often this process took the lease", registry=self.registry
        )
        self.webhook_reviews = Counter(
            f"{prefix}_webhook_reviews",
            "Requests to the admission webhook, by result",
            ["result"],
            registry=self.registry,
        )
        self.webhook_review_seconds = Histogram(
            f"{prefix}_webhook_review_seconds",
            "Duration of a request to the admission webhook",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.webhook_certificate_expiry = Gauge(
            f"{prefix}_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate that the webhook shows ends (0: there is none)",
            registry=self.registry,
        )
        self.webhook_certificate_failures = Counter(
            f"{prefix}_webhook_certificate_failures",
            "Failed tries to have the webhook's certificate (secret) or to publish its authority (configuration)",
            ["step"],
            registry=self.registry,
        )
        self._memory_ratios = _MemoryRatios()
        self.registry.register(self._memory_ratios)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that begins with its first event has no increase then: what alerts count is there from the start."""
        for counter, values in (
            (self.reconciles, ("ok", "refused", "error")),
            (self.drift_repaired, [resource.kind for resource in CHILDREN]),
            (self.missed_events, [resource.plural for resource in CACHED]),
            (self.webhook_reviews, ("allowed", "warned", "refused", "skipped", "malformed", "failed")),
            (self.webhook_certificate_failures, ("secret", "configuration")),
        ):
            for value in values:
                counter.labels(value)

    def show_memory_ratios(self, *, namespace: str, name: str, ratios: Mapping[str, float]) -> None:
        """Estimated by measured memory of one LlamaModel, by device; none where nothing is measured, or it is gone."""
        self._memory_ratios.put((namespace, name), ratios)

    def observe_write(self, *, kind: str, verb: str, status: int) -> None:
        """Counts one write."""
        self.api_writes.labels(kind=kind, verb=verb, status=str(status)).inc()

    def watch_queue(
        self, *, depth: Callable[[], int], oldest_wait: Callable[[], float], longest_pass: Callable[[], float]
    ) -> None:
        """Reads the queue's state whenever it is scraped."""
        for name, text, read in (
            ("queue_depth", "LlamaModels that wait for a pass", depth),
            ("queue_oldest_wait_seconds", "How long the longest waiting LlamaModel has waited", oldest_wait),
            ("longest_pass_seconds", "How long the longest running pass has taken so far", longest_pass),
        ):
            gauge = Gauge(f"llamamodel_operator_{name}", text, registry=self.registry)
            gauge.set_function(read)

    def watch_phases(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Reads the number of LlamaModels by phase whenever it is scraped."""
        self.registry.register(_Phases(count))


class _Phases(Collector):
    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "llamamodel_operator_models", "LlamaModels by phase of their status", labels=["phase"]
        )
        for phase, number in sorted(self._count().items()):
            family.add_metric([phase], number)
        return [family]


class _MemoryRatios(Collector):
    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str], Mapping[str, float]] = {}

    def put(self, model: tuple[str, str], ratios: Mapping[str, float]) -> None:
        if ratios:
            self._by_model[model] = ratios
        else:
            self._by_model.pop(model, None)

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "llamamodel_operator_memory_estimate_ratio",
            "Estimated memory divided by what the server says it took",
            labels=["namespace", "model", "device"],
        )
        for (namespace, name), ratios in sorted(self._by_model.items()):
            for device, ratio in ratios.items():
                family.add_metric([namespace, name, device], ratio)
        return [family]
