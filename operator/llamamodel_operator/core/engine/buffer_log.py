"""What a llama-server took, by its own log: bytes per device, from the lines that it writes while it loads.

The lines are those below, after an optional time, level letter, colours, or as the `msg` of a JSON line. Sizes are MiB
with two decimals. `FUNCTION` is the name of a C++ function, which differs from build to build and is not looked at, but
for the projector. Line numbers are those of b11434.

| line | printed by | seen in |
|---|---|---|
| `FUNCTION: BUFFER model buffer size = N MiB` | src/llama-model.cpp:1932 | logs of b10068, b10092, b10434, b11669 |
| `FUNCTION: BUFFER KV buffer size = N MiB` | src/llama-kv-cache.cpp:291 | the same logs |
| `FUNCTION: BUFFER RS buffer size = N MiB` | src/llama-memory-recurrent.cpp:124 | sources of b10435, b11434 |
| `FUNCTION: BUFFER DSV4 NAME state buffer size = N MiB` | src/llama-kv-cache-dsv4.cpp:995 | sources of b10435, b11434 |
| `FUNCTION: BUFFER LoRA buffer size = N MiB` | src/llama-adapter.cpp:392 | log of b11669 |
| `FUNCTION: BUFFER  output buffer size = N MiB` | src/llama-context.cpp:383 | the same logs |
| `FUNCTION: BUFFER compute buffer size = N MiB` | src/llama-context.cpp:742 | the same logs |
| the same, of `reserve_compute_meta` or `alloc_compute_meta` | tools/mtmd/clip.cpp:3815 | sources of b10435, b11434 |
| `FUNCTION: offloaded N/M layers to GPU` | src/llama-model.cpp:1926 | logs of b10068 to b10434, also without a GPU |
| `… all slots are idle` | tools/server/server-context.cpp | log of b11669 |

With all messages on (`-v`), `--fit` loads each model once more beforehand without taking memory, and prints the same
lines with model buffers of 0.00 MiB. A context can size its compute buffers again, as it does when adapters are set:
the last size counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llamamodel_operator.core.memory.estimate import DeviceMemory

__all__ = ["Measured", "MeasuredGpu", "measured_buffers", "tells_buffers"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = r'^(?:\{.{0,200}?"msg":")?(?:[\d.]+ +)?(?:[A-Z] +)?'
_END = r'(?:\\n".{0,200})?\s*$'
_SIZE = re.compile(
    _PREFIX
    + r"(?P<function>\w+): +(?P<buffer>\S{1,128}) +(?P<kind>model|KV|RS|DSV4 \S{1,32} state|LoRA|output|compute)"
    + r" buffer size = +(?P<mib>\d{1,9}\.\d\d) MiB"
    + _END
)
_OFFLOADED = re.compile(_PREFIX + r"\w+: offloaded (\d{1,6})/(\d{1,6}) layers to GPU" + _END)
_READY = "all slots are idle"
"""From here on it serves, and its log may have text that users sent."""
_OF_PROJECTOR = frozenset({"reserve_compute_meta", "alloc_compute_meta"})
_KINDS: Mapping[str, str] = {
    "model": "weights",
    "KV": "kv_cache",
    "RS": "recurrent_state",
    "LoRA": "adapters",
    "output": "output",
    "compute": "compute",
}
"""Attribute of `DeviceMemory`; DSV4's states are recurrent states as well."""
_OF_CONTEXT = frozenset({"kv_cache", "recurrent_state", "output"})
_HOST = re.compile(r"CPU(_.*)?|AMX|BLAS|.*_Host")
_SAME_MEMORY = re.compile(r"_(Mapped|Private|Shared)$")
"""Ways in which Metal takes memory of one device."""
_NUMBER = re.compile(r"(\d+)")
_MOST_GPUS = 64
_MIB = 2**20

_TELLING_VERBOSITY = 4
_VERBOSITY_FLAGS = frozenset({"-lv", "--verbosity", "--log-verbosity"})
_ALL_FLAGS = frozenset({"-v", "--verbose", "--log-verbose"})
_VERBOSITY_VARIABLES = frozenset({"LLAMA_ARG_LOG_VERBOSITY", "LLAMA_LOG_VERBOSITY"})
_FIRST_QUIET_BUILD = 9181
"""From about this build on the lines need `-lv 4` (llama.cpp, pull request 23021)."""


@dataclass(frozen=True, kw_only=True)
class MeasuredGpu:
    """What was taken on one GPU.

    Attributes:
        name: as llama.cpp names it, such as CUDA0. Where it does not tell GPUs apart, of all of them: CUDA_Split with
            split mode row, Meta() with split mode tensor.
        memory: overhead is 0, the log does not tell it; of a projector, only the scratch buffer.
    """

    name: str
    memory: DeviceMemory


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a server took, in bytes, rounded by its log to 0.01 MiB for each buffer.

    Attributes:
        gpus: in the order of their numbers; those that nothing was taken on are missing.
        host: weights are those of mapped files as well. Builds up to b11434 map a file as one range, from the first
            tensor that is needed to the last: repacked weights then count twice. b11669 maps what is needed.
        gpu_layers: how many layers were offloaded, the output layer counted; None where it did not say.
        layers: how many there are, the output layer counted.
    """

    gpus: tuple[MeasuredGpu, ...]
    host: DeviceMemory
    gpu_layers: int | None = None
    layers: int | None = None


class _Taken(NamedTuple):
    buffer: str
    field: str


@dataclass
class _Context:
    fixed: Counter[_Taken] = field(default_factory=Counter)
    compute: dict[str, int] = field(default_factory=dict)


@dataclass
class _Load:
    """One model that was loaded, and the contexts that were made of it."""

    offloaded: tuple[int, int] | None = None
    weights: Counter[_Taken] = field(default_factory=Counter)
    contexts: list[_Context] = field(default_factory=list)

    @property
    def is_dry(self) -> bool:
        """Whether it took no memory."""
        return not any(size for taken, size in self.weights.items() if taken.field == "weights")


def tells_buffers(words: Sequence[str], *, env: Sequence[Mapping[str, Any]] = (), build: int | None) -> bool:
    """Whether the log of a server with this command line can be expected to have the lines.

    Args:
        words: of the command line.
        env: variables of the container, as in a pod.
        build: number of its build; None where it is not known.
    """
    verbosity = _TELLING_VERBOSITY if build is None or build < _FIRST_QUIET_BUILD else 0
    for variable in env:
        if variable.get("name") in _VERBOSITY_VARIABLES:
            verbosity = _number(str(variable.get("value")), otherwise=verbosity)
    for word, following in zip(words, [*words, ""][1:], strict=True):
        spelling = word.replace("_", "-")
        if spelling in _ALL_FLAGS:
            verbosity = _TELLING_VERBOSITY
        elif spelling in _VERBOSITY_FLAGS:
            verbosity = _number(following, otherwise=verbosity)
    return verbosity >= _TELLING_VERBOSITY


def measured_buffers(lines: Iterable[str]) -> Measured | None:
    """What the server took, all models and contexts together; None where the log does not tell, or not to the end.

    Args:
        lines: of its log from its start; those after it was ready do not count.
    """
    loads, projector = list[_Load](), dict[str, int]()
    offloaded: tuple[int, int] | None = None
    for line in lines:
        if _READY in line:
            break
        if "offloaded" in line and (said := _OFFLOADED.match(_COLOUR.sub("", line))):
            offloaded = int(said[1]), int(said[2])
        if "buffer size" not in line or not (found := _SIZE.match(_COLOUR.sub("", line))):
            continue
        size = round(float(found["mib"]) * _MIB)
        taken = _Taken(found["buffer"], _KINDS.get(found["kind"], "recurrent_state"))
        if found["function"] in _OF_PROJECTOR:
            projector[taken.buffer] = size
            continue
        if taken.field == "weights" and (not loads or loads[-1].contexts):
            loads.append(_Load(offloaded=offloaded))
            offloaded = None
        if loads:
            _note(loads[-1], taken, size)
    return _summed([load for load in loads if not load.is_dry], projector)


def _note(load: _Load, taken: _Taken, size: int) -> None:
    if taken.field in ("weights", "adapters"):
        load.weights[taken] += size
        return
    begins = not load.contexts or (taken.field in _OF_CONTEXT and bool(load.contexts[-1].compute))
    if begins:
        load.contexts.append(_Context())
    context = load.contexts[-1]
    if taken.field in _OF_CONTEXT:
        context.fixed[taken] += size
    else:
        context.compute[taken.buffer] = size


def _summed(loads: Sequence[_Load], projector: Mapping[str, int]) -> Measured | None:
    if not loads or not all(load.contexts and all(context.compute for context in load.contexts) for load in loads):
        return None
    devices: dict[str, Counter[str]] = {"": Counter()}

    def add(buffer: str, name: str, size: int) -> None:
        device = "" if _HOST.fullmatch(buffer) else _SAME_MEMORY.sub("", buffer)
        devices.setdefault(device, Counter())[name] += size

    for load in loads:
        for taken, size in load.weights.items():
            add(taken.buffer, taken.field, size)
        for context in load.contexts:
            for taken, size in context.fixed.items():
                add(taken.buffer, taken.field, size)
            for buffer, size in context.compute.items():
                add(buffer, "compute", size)
    for buffer, size in projector.items():
        add(buffer, "projector", size)
    host = DeviceMemory(**devices.pop(""))
    if len(devices) > _MOST_GPUS:
        return None
    gpu_layers, layers = loads[0].offloaded or (None, None)
    return Measured(
        gpus=tuple(
            MeasuredGpu(name=name, memory=DeviceMemory(**taken))
            for name, taken in sorted(devices.items(), key=lambda item: _natural(item[0]))
        ),
        host=host,
        gpu_layers=gpu_layers,
        layers=layers,
    )


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """So that CUDA10 comes after CUDA9."""
    parts = [*_NUMBER.split(name), "0"]
    return tuple((text, int(number)) for text, number in zip(parts[::2], parts[1::2], strict=True))


def _number(text: str, *, otherwise: int) -> int:
    return int(text) if re.fullmatch(r"-?\d{1,10}", text) else otherwise
