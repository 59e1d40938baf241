"""Metrics of single LlamaModels: what their status says, and how often their servers were started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from llamamodel_operator.api.status import GpuMemoryStatus, HostMemoryStatus, MeasuredMemoryStatus, MemoryStatus
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import MODELS, PODS
from llamamodel_operator.shell.model_metrics import ModelMetrics
from llamamodel_operator.shell.store import Key, Store

from .builders import ModelBuilder, PodBuilder, a_model, a_pod


class Scraped:
    """What a scrape shows of these objects."""

    def __init__(self, *objects: ModelBuilder | PodBuilder) -> None:
        self.store = Store()
        for built in objects:
            self.store.put(PODS if isinstance(built, PodBuilder) else MODELS, built.raw())
        self.registry = CollectorRegistry()
        self.registry.register(ModelMetrics(self.store))

    def series(self, name: str) -> dict[str, float]:
        """Of the metric, by the labels as they are written."""
        lines = generate_latest(self.registry).decode().splitlines()
        found = [line for line in lines if line.startswith(f"llamamodel_operator_model_{name}{{")]
        return {line.partition("{")[2].rpartition("}")[0]: float(line.rpartition(" ")[2]) for line in found}


GEMMA = 'model="gemma",namespace="demo"'


def a_condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "…", "lastTransitionTime": "…"}


def a_status(**fields: object) -> Mapping[str, Any]:
    return {"phase": "Ready", **fields}


def test_phase_and_conditions_are_those_of_the_status() -> None:
    conditions = [a_condition("Ready", "False", "OutOfGPUMemory"), a_condition("MemoryFits", "Unknown", "GpuShared")]
    scraped = Scraped(a_model().with_status(a_status(phase="Failed", conditions=conditions)))
    assert scraped.series("phase") == {f'{GEMMA},phase="Failed"': 1}
    assert scraped.series("condition") == {
        f'{GEMMA},reason="OutOfGPUMemory",status="False",type="Ready"': 1,
        f'{GEMMA},reason="GpuShared",status="Unknown",type="MemoryFits"': 1,
    }


def test_a_model_without_a_status_has_an_unknown_phase_and_no_pods() -> None:
    scraped = Scraped(a_model())
    assert scraped.series("phase") == {f'{GEMMA},phase="Unknown"': 1}
    assert scraped.series("pods") == scraped.series("pods_ready") == {GEMMA: 0}
    assert scraped.series("condition") == scraped.series("slots") == {}


def test_pods_are_counted_as_the_status_does() -> None:
    scraped = Scraped(a_model().with_status(a_status(replicas=3, readyReplicas=2)))
    assert (scraped.series("pods"), scraped.series("pods_ready")) == ({GEMMA: 3}, {GEMMA: 2})


@pytest.mark.parametrize(
    ("words", "slots"),
    [
        (["--parallel", "2"], 2),
        (["-np", "8"], 8),
        (["--parallel", "2", "-np", "8"], 8),
        (["--ctx-size", "4096"], 4),
        (["--alias", "--parallel"], 4),
    ],
)
def test_slots_are_those_of_the_command_line(words: list[str], slots: int) -> None:
    scraped = Scraped(a_model().with_status(a_status(command=["llama-server", *words])))
    assert scraped.series("slots") == {GEMMA: slots}


def test_memory_is_told_by_device_in_bytes() -> None:
    memory = MemoryStatus(
        gpus=[GpuMemoryStatus(total="100Mi", available="24Gi"), GpuMemoryStatus(total="50Mi")],
        host=HostMemoryStatus(total="7Mi"),
        fits="True",
        summary="",
        context_size=1,
        gpu_layers=1,
        measured=MeasuredMemoryStatus(gpus=["90Mi", "60Mi"], host="6Mi"),
    ).to_wire()
    scraped, mebibyte = Scraped(a_model().with_status(a_status(memory=memory))), 1 << 20
    assert scraped.series("memory_estimate_bytes") == {
        f'device="gpu0",{GEMMA}': 100 * mebibyte,
        f'device="gpu1",{GEMMA}': 50 * mebibyte,
        f'device="host",{GEMMA}': 7 * mebibyte,
    }
    assert scraped.series("memory_available_bytes") == {f'device="gpu0",{GEMMA}': 24 * 1024 * mebibyte}
    assert scraped.series("memory_measured_bytes") == {
        f'device="gpu0",{GEMMA}': 90 * mebibyte,
        f'device="gpu1",{GEMMA}': 60 * mebibyte,
        f'device="host",{GEMMA}': 6 * mebibyte,
    }


def test_restarts_are_those_of_llama_server_in_each_pod_of_the_model() -> None:
    odd = a_model().named("qwen2.5")
    scraped = Scraped(
        a_model(),
        odd,
        a_pod().restarted(3).with_sidecar(restartCount=9),
        a_pod().named("gemma-1"),
        a_pod().named("qwen-0").of("qwen2.5").restarted(1),
    )
    assert scraped.series("restarts_total") == {
        f'{GEMMA},pod="gemma-0"': 3,
        'model="qwen2.5",namespace="demo",pod="qwen-0"': 1,
    }


def test_the_name_of_the_service_is_told() -> None:
    scraped = Scraped(a_model(), a_model().named("qwen2.5"))
    assert scraped.series("info") == {
        f'{GEMMA},service="gemma"': 1,
        f'model="qwen2.5",namespace="demo",service="{child_name("qwen2.5")}"': 1,
    }


def test_a_model_that_is_gone_has_no_series() -> None:
    scraped = Scraped(a_model().with_status(a_status(command=["llama-server"])), a_pod().restarted(1))
    scraped.store.discard(MODELS, Key("demo", "gemma"))
    for name in ("info", "phase", "pods", "slots", "restarts_total"):
        assert scraped.series(name) == {}
