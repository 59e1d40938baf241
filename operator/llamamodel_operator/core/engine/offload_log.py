"""Whether a llama-server has a GPU to put layers on, by the start of its own log.

"offloaded N/M layers to GPU" proves nothing: it is printed for the layers that were asked for, also where there is no
device (b10068 to b10434, run on a machine without one). What counts is the devices that a back end has found.

| line | means | printed by | seen in |
|---|---|---|---|
| `warning: no usable GPU found, --gpu-layers option will be ignored` | none | common/arg.cpp | b4257 to b11669 |
| `ggml_cuda_init: failed to initialize CUDA: …` (ROCm, MUSA) | none | ggml-cuda.cu | public logs |
| `ggml_cuda_init: found N CUDA devices` (ROCm, MUSA) | N | ggml-cuda.cu | public logs |
| `ggml_vulkan: No devices found.` | none | ggml-vulkan.cpp | public logs |
| `ggml_vulkan: Found N Vulkan devices:` | N | ggml-vulkan.cpp | public logs |
| `load_backend: loaded NAME backend from …` | none, where all are CPU or RPC | ggml-backend-reg.cpp | public logs |
| buffers on devices | as they say | see `buffer_log` | logs with `-lv 4` |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llamamodel_operator.core.engine.buffer_log import Measured

__all__ = ["Offload", "offload_of"]

_LONGEST_LINE = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NONE = re.compile(
    r"no usable GPU found, --(?:n-)?gpu-layers|ggml_cuda_init: failed to initialize|ggml_vulkan: No devices found"
)
_FOUND = re.compile(r"ggml_cuda_init: found (\d{1,4}) \w+ devices|ggml_vulkan: Found (\d{1,4}) Vulkan devices")
_BACKEND = re.compile(r"load_backend: loaded (\w{1,32}) backend")
_WITHOUT_GPU = frozenset({"CPU", "RPC", "BLAS"})
_READY = "all slots are idle"
"""From here on its log may have text that users sent."""


@dataclass(frozen=True, kw_only=True)
class Offload:
    """What a log says.

    Attributes:
        on_gpu: whether the server has a GPU.
        line: that says it, shortened.
    """

    on_gpu: bool
    line: str


def offload_of(lines: Iterable[str], *, measured: Measured | None) -> Offload | None:
    """What the log says of GPUs; None where it says nothing.

    Args:
        lines: of the log, from its start.
        measured: buffers that the same log tells of, which outweigh everything else.
    """
    if measured is not None:
        weights = [gpu for gpu in measured.gpus if gpu.memory.weights]
        names = ", ".join(gpu.name for gpu in weights)
        return Offload(on_gpu=bool(weights), line=f"weights are on {names or 'the CPU alone'}")
    none, found, backends = None, None, dict[str, str]()
    for raw in lines:
        if _READY in raw:
            break
        line = _COLOUR.sub("", raw).strip()[:_LONGEST_LINE]
        if _NONE.search(line):
            none = none or line
        elif said := _FOUND.search(line):
            if int(said[1] or said[2]):
                found = found or line
            else:
                none = none or line
        elif loaded := _BACKEND.search(line):
            backends.setdefault(loaded[1], line)
    if found is not None:  # of two back ends one may find nothing
        return Offload(on_gpu=True, line=found)
    if none is not None:
        return Offload(on_gpu=False, line=none)
    if backends and backends.keys() <= _WITHOUT_GPU:
        return Offload(on_gpu=False, line=backends.get("CPU") or next(iter(backends.values())))
    return None
