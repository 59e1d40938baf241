"""Which device each layer, the output and single tensors are on."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamamodel_operator.core.memory.grouping import MemoryModel
from llamamodel_operator.core.memory.patterns import UnreadablePatternError
from llamamodel_operator.core.memory.settings import MemorySettings

__all__ = ["HOST", "Placement", "by_device", "home_of", "place"]

HOST = -1
"""Instead of a GPU's number."""
HOST_BUFFERS = frozenset(("CPU", "CPU_Mapped", "CPU_REPACK", "CUDA_Host", "ROCm_Host", "SYCL_Host", "Vulkan_Host"))
GPU_BUFFER = re.compile(r"(?:CUDA|ROCm|MUSA|SYCL|Vulkan|CANN|RPC|Metal|MTL|OpenCL|HIP)_?([0-9]{1,2})(?:\[.*)?")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Of one model. Devices are numbers of GPUs, from 0, or `HOST`.

    Attributes:
        gpus: how many there are, also those that nothing is on.
        used: the GPUs that llama.cpp was given, in its order: all, or the main one.
        layers: the device of each block (as `Geometry.layers`): of its weights, and where it computes.
        caches: the device of each block's cache and recurrent state.
        output: the device of the output matrix and its norm.
        moved: devices of tensors, by name, that need not be where their layer is.
        shares: parts of one that each used GPU has of each layer's matrices (split modes row and tensor);
            empty where layers are whole.
        divides_caches: so are caches (split mode tensor).
        gpu_layers: how many layers are offloaded, the output layer counted.
        uncertain: why the placement may differ; empty where it is known.
    """

    gpus: int
    used: tuple[int, ...]
    layers: tuple[int, ...]
    caches: tuple[int, ...]
    output: int
    moved: Mapping[str, int]
    shares: tuple[float, ...] = ()
    divides_caches: bool = False
    gpu_layers: int = 0
    uncertain: tuple[str, ...] = ()


def place(model: MemoryModel, settings: MemorySettings, *, gpus: int) -> Placement:
    """Where llama.cpp puts the model.

    Source: llama_prepare_model_devices in src/llama.cpp; llama_model_base::load_tensors in src/llama-model.cpp
    (get_layer_buft_list); llama_model_loader::create_tensor in src/llama-model-loader.cpp for single tensors;
    the constructors of llama_kv_cache and llama_memory_recurrent for caches.
    """
    uncertain: list[str] = []
    used = tuple(range(gpus))
    if settings.split_mode == "none" and gpus:
        if settings.main_gpu >= gpus:
            uncertain.append(f"main GPU {settings.main_gpu} is not one of {gpus}: llama-server will not start")
        used = () if settings.main_gpu < 0 else (min(settings.main_gpu, gpus - 1),)
    count = len(model.geometry.layers)
    offloaded = min(max(settings.gpu_layers, 0), count + 1) if used else 0
    devices = _devices(count, offloaded, used, settings)
    moved = _moved(model, settings, devices, gpus, uncertain)
    if not model.not_followed.isdisjoint(moved):
        uncertain.append(
            "override of tensors other than those of attention, feed-forward and experts: scratch buffers are counted "
            "as without it"
        )
    shares: tuple[float, ...] = ()
    if settings.split_mode in ("row", "tensor") and len(used) > 1:
        shares = tuple(_shares(settings.tensor_split, len(used)))
        uncertain.append(f"split mode {settings.split_mode}: how matrices are divided is approximated")
    return Placement(
        gpus=gpus,
        used=used,
        layers=devices[:count],
        caches=devices[:count] if settings.kv_offload else (HOST,) * count,
        output=devices[count],
        moved=moved,
        shares=shares,
        divides_caches=settings.split_mode == "tensor",
        gpu_layers=offloaded,
        uncertain=tuple(uncertain),
    )


def _devices(count: int, offloaded: int, used: Sequence[int], settings: MemorySettings) -> tuple[int, ...]:
    """Devices of all blocks and, last, of the output layer."""
    start = count + 1 - offloaded
    if not used or not offloaded:
        return (HOST,) * (count + 1)
    if len(used) == 1 or settings.split_mode == "tensor":
        return (HOST,) * start + (used[0],) * offloaded
    # in 32-bit floats, as llama.cpp: a layer on the border of two GPUs falls to the same side
    splits, total = list[float](), 0.0
    for share in _given(settings.tensor_split, len(used)):
        total = _float32(total + _float32(share))
        splits.append(total)
    borders = (
        bisect_left(range(offloaded), _float32(split / total), key=lambda layer: _float32(layer / offloaded))
        for split in splits[:-1]
    )
    devices, first = (HOST,) * start, 0
    for device, border in zip(used, (*borders, offloaded), strict=True):
        devices += (device,) * (border - first)
        first = border
    return devices


def _given(tensor_split: Sequence[float], count: int) -> list[float]:
    """Shares of the GPUs as they are given; equal where none are (llama.cpp then goes by free memory)."""
    shares = [max(share, 0.0) for share in tensor_split[:count]]
    shares += [0.0] * (count - len(shares))
    # infinite or not a number: not a share that llama-server could be given
    return shares if 0 < sum(shares) < float("inf") else [1.0] * count


def _shares(tensor_split: Sequence[float], count: int) -> list[float]:
    """Shares of the GPUs as parts of one."""
    given = _given(tensor_split, count)
    return [share / sum(given) for share in given]


def by_device(devices: Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    """Bytes of layers on each device that has any; a device's layers are side by side."""
    result: dict[int, int] = {}
    first = 0
    while first < len(devices):
        end = first + devices.count(devices[first])
        result[devices[first]] = sum(sizes[first:end])
        first = end
    return result


def _float32(value: float) -> float:
    return array("f", (value,))[0]


def _moved(
    model: MemoryModel, settings: MemorySettings, devices: Sequence[int], gpus: int, uncertain: list[str]
) -> dict[str, int]:
    """Tensors that -ot, -cmoe and -ncmoe take from where they would be; the first pattern that matches decides.

    llama.cpp goes by the order of the command line; here -ot comes before -cmoe and -ncmoe.
    """
    moved: dict[str, int] = {}
    for block in range(min(settings.cpu_moe_layers, len(model.experts))):
        if devices[block] != HOST:
            moved.update(dict.fromkeys(model.experts[block], HOST))
    if not settings.override_tensors:
        return moved
    decided: dict[str, int | None] = {}
    for expression, buffer in settings.override_tensors:
        device = _device_of_buffer(buffer, gpus)
        try:
            for name in model.matching(expression):
                decided.setdefault(name, device)
        except UnreadablePatternError as error:
            uncertain.append(f"override of tensors {expression[:60]!r} is not followed: {error}")
        if device is None:
            uncertain.append(f"override of tensors: {buffer[:40]!r} is not a known buffer type such as CPU or CUDA0")
    for name in model.tensors:  # in the order of the file, as layers that are alike have to be so in this, too
        device = decided.get(name)
        if device is not None:
            moved[name] = device
    return moved


def home_of(model: MemoryModel, devices: Sequence[int], name: str) -> int:
    """Where a tensor is that nothing moves; `devices` are those of all blocks and the output layer."""
    block = model.homes.get(name)
    if block is not None:
        return devices[block]
    return HOST if model.is_input(name) else devices[-1]


def _device_of_buffer(buffer: str, gpus: int) -> int | None:
    if buffer in HOST_BUFFERS:
        return HOST
    match = GPU_BUFFER.fullmatch(buffer)
    return int(match[1]) if match is not None and int(match[1]) < gpus else None
