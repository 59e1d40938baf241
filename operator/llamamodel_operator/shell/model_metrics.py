"""Prometheus metrics of single LlamaModels, `llamamodel_operator_model_…`: what their status says, and their pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from llamamodel_operator.api.amounts import parse_quantity
from llamamodel_operator.api.engine import DEFAULT_PARALLEL_SLOTS
from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import MODELS, PODS
from llamamodel_operator.shell.store import Key, Store

__all__ = ["ModelMetrics"]

_PREFIX = "llamamodel_operator_model"
_MODEL = ("namespace", "model")
_SLOTS_FLAGS = frozenset(("--parallel", "-np"))
_HOST = "host"
"""The device that is no GPU, as in `core.memory.comparison`."""

Series = Iterator[tuple[tuple[str, ...], float]]


class ModelMetrics(Collector):
    """Reads the cache whenever it is scraped, so that a LlamaModel that is gone has no series any more."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """All of them, for prometheus_client."""
        info = _gauge("info", "1 for the name that the LlamaModel's Service and pods have", "service")
        phases = _gauge("phase", "1 for the phase of the LlamaModel's status", "phase")
        conditions = _gauge(
            "condition", "1 for the status and the reason that a condition has", "type", "status", "reason"
        )
        pods = _gauge("pods", "Pods of the LlamaModel that exist")
        ready = _gauge("pods_ready", "Pods of the LlamaModel that answer")
        slots = _gauge("slots", "Requests that each llama-server of the LlamaModel works on at a time")
        estimated = _gauge("memory_estimate_bytes", "Memory that each llama-server is estimated to take", "device")
        available = _gauge("memory_available_bytes", "Memory that the device has", "device")
        measured = _gauge("memory_measured_bytes", "Memory that a llama-server says that it took", "device")
        restarts = CounterMetricFamily(
            f"{_PREFIX}_restarts", "Restarts of llama-server in a pod that there is", labels=[*_MODEL, "pod"]
        )
        for key in sorted(self._store.keys(MODELS)):
            raw = self._store.get(MODELS, key) or {}
            status: Mapping[str, Any] = raw.get("status") or {}
            info.add_metric([*key, child_name(key.name)], 1)
            phases.add_metric([*key, status.get("phase") or "Unknown"], 1)
            for condition in status.get("conditions") or []:
                conditions.add_metric([*key, condition["type"], condition["status"], condition["reason"]], 1)
            pods.add_metric(list(key), status.get("replicas", 0))
            ready.add_metric(list(key), status.get("readyReplicas", 0))
            if command := status.get("command"):
                slots.add_metric(list(key), _slots(command))
            memory = status.get("memory") or {}
            for family, series in (
                (estimated, _estimated(memory)),
                (available, _available(memory)),
                (measured, _measured(memory.get("measured"))),
            ):
                for labels, value in series:
                    family.add_metric([*key, *labels], value)
            for labels, value in self._restarts(key):
                restarts.add_metric([*key, *labels], value)
        return [info, phases, conditions, pods, ready, slots, estimated, available, measured, restarts]

    def _restarts(self, key: Key) -> Series:
        for pod in self._store.select(PODS, Key(key.namespace, child_name(key.name))):
            for container in pod["status"].get("containerStatuses") or []:
                if container["name"] == CONTAINER:
                    yield (pod["metadata"]["name"],), container.get("restartCount", 0)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=[*_MODEL, *labels])


def _slots(command: list[str]) -> int:
    """As the command line says; the last one counts, as for llama-server."""
    for flag, value in reversed(list(pairwise(command))):
        if flag in _SLOTS_FLAGS and value.isdecimal():
            return int(value)
    return DEFAULT_PARALLEL_SLOTS


def _estimated(memory: Mapping[str, Any]) -> Series:
    for index, gpu in enumerate(memory.get("gpus") or []):
        yield (f"gpu{index}",), _bytes(gpu["total"])
    if host := memory.get("host"):
        yield (_HOST,), _bytes(host["total"])


def _available(memory: Mapping[str, Any]) -> Series:
    for index, gpu in enumerate(memory.get("gpus") or []):
        if gpu.get("available"):
            yield (f"gpu{index}",), _bytes(gpu["available"])


def _measured(measured: Mapping[str, Any] | None) -> Series:
    if measured is None:
        return
    for index, total in enumerate(measured["gpus"]):
        yield (f"gpu{index}",), _bytes(total)
    if host := measured.get("host"):
        yield (_HOST,), _bytes(host)


def _bytes(quantity: str) -> float:
    return float(parse_quantity(quantity))
