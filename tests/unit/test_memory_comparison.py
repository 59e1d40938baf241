"""How far an estimate is from what was measured, and the metric that tells it."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from llamamodel_operator.core.engine.buffer_log import Measured, MeasuredGpu
from llamamodel_operator.core.memory.comparison import estimate_ratios
from llamamodel_operator.core.memory.estimate import DeviceMemory, MemoryEstimate
from llamamodel_operator.shell.metrics import Metrics


def an_estimate(*gpus: DeviceMemory, host: DeviceMemory | None = None) -> MemoryEstimate:
    host = host or DeviceMemory(weights=10)
    return MemoryEstimate(
        gpus=gpus, host=host, context_size=4096, slot_context_size=4096, slots=1, layers=4, gpu_layers=5
    )


def a_measurement(host: DeviceMemory | None = None, **gpus: DeviceMemory) -> Measured:
    taken = tuple(MeasuredGpu(name=name, memory=memory) for name, memory in gpus.items())
    return Measured(gpus=taken, host=host or DeviceMemory(weights=10))


def test_each_device_has_its_ratio() -> None:
    estimate = an_estimate(DeviceMemory(weights=90), DeviceMemory(weights=100, kv_cache=20))
    real = a_measurement(CUDA0=DeviceMemory(weights=80, compute=20), CUDA1=DeviceMemory(weights=100))
    assert estimate_ratios(estimate, real) == {"host": 1.0, "CUDA0": 0.9, "CUDA1": 1.2}


def test_what_the_log_does_not_tell_is_left_out() -> None:
    estimate = an_estimate(
        DeviceMemory(weights=100, overhead=500, projector=50), host=DeviceMemory(prompt_cache=8, output=3)
    )
    real = a_measurement(CUDA0=DeviceMemory(weights=100, projector=30), host=DeviceMemory(output=1))
    assert estimate_ratios(estimate, real) == {"CUDA0": 1.0}


@pytest.mark.parametrize("name", ["CUDA_Split", "Meta()"])
def test_gpus_that_cannot_be_told_apart_have_one_ratio(name: str) -> None:
    estimate = an_estimate(DeviceMemory(weights=60), DeviceMemory(weights=60))
    real = a_measurement(**{name: DeviceMemory(weights=100)})
    assert estimate_ratios(estimate, real) == {"host": 1.0, "gpus": 1.2}


def test_nothing_on_the_gpus_gives_no_ratio_for_them() -> None:
    assert estimate_ratios(an_estimate(DeviceMemory(weights=60)), a_measurement()) == {"host": 1.0}


def test_the_metric_has_the_ratios_as_long_as_they_are_known() -> None:
    metrics = Metrics()
    metrics.show_memory_ratios(namespace="demo", name="gemma", ratios={"host": 1.0, "CUDA0": 0.9})
    metrics.show_memory_ratios(namespace="demo", name="qwen", ratios={"CUDA0": 1.1})
    assert _shown(metrics) == [
        'llamamodel_operator_memory_estimate_ratio{device="host",model="gemma",namespace="demo"} 1.0',
        'llamamodel_operator_memory_estimate_ratio{device="CUDA0",model="gemma",namespace="demo"} 0.9',
        'llamamodel_operator_memory_estimate_ratio{device="CUDA0",model="qwen",namespace="demo"} 1.1',
    ]
    metrics.show_memory_ratios(namespace="demo", name="gemma", ratios={"CUDA0": 1.05})
    metrics.show_memory_ratios(namespace="demo", name="qwen", ratios={})
    metrics.show_memory_ratios(namespace="demo", name="never-measured", ratios={})
    assert _shown(metrics) == [
        'llamamodel_operator_memory_estimate_ratio{device="CUDA0",model="gemma",namespace="demo"} 1.05'
    ]


def _shown(metrics: Metrics) -> list[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith("llamamodel_operator_memory_estimate_ratio{")]
