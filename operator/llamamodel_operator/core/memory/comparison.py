"""An estimate beside what a server took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamamodel_operator.core.engine.buffer_log import Measured
from llamamodel_operator.core.memory.estimate import DeviceMemory, MemoryEstimate

__all__ = ["ALL_GPUS", "HOST", "estimate_ratios"]

HOST = "host"
ALL_GPUS = "gpus"
"""Where GPUs cannot be told apart."""


def estimate_ratios(estimate: MemoryEstimate, measured: Measured) -> Mapping[str, float]:
    """Estimated by measured bytes, per device: 0.9 where a tenth was missing from the estimate.

    Only what llama-server's log tells counts: weights, caches, compute buffers, adapters. The driver's overhead, the
    projector and the prompt cache are not told, and an embedding server makes its output buffer larger after loading.
    GPUs have llama.cpp's names; all together are `gpus` where not as many were measured as were estimated (split modes
    row and tensor, a GPU that got nothing).
    """
    pairs = {HOST: (_told([estimate.host]), _told([measured.host]))}
    if len(estimate.gpus) == len(measured.gpus):
        for gpu, real in zip(estimate.gpus, measured.gpus, strict=True):
            pairs[real.name] = (_told([gpu]), _told([real.memory]))
    else:
        pairs[ALL_GPUS] = (_told(estimate.gpus), _told(real.memory for real in measured.gpus))
    return {name: mine / theirs for name, (mine, theirs) in pairs.items() if theirs}


def _told(devices: Iterable[DeviceMemory]) -> int:
    return sum(d.weights + d.kv_cache + d.recurrent_state + d.compute + d.adapters for d in devices)
