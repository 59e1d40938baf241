"""Bytes of weights per device: of a model, of its adapters and of its projector."""

from __future__ import annotations

from collections.abc import Sequence

from llamamodel_operator.core.gguf.ggml_types import GGML_TYPES
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.memory.context import padded
from llamamodel_operator.core.memory.grouping import ALIGNMENT, MemoryModel
from llamamodel_operator.core.memory.placement import HOST, Placement, by_device, home_of

__all__ = ["adapter_bytes", "model_bytes", "projector_bytes"]

SCORES = 4
"""Bytes of an element of a projector's attention scores and activations (f32)."""
FLASH_HEADS = frozenset((64, 80, 96, 112, 128, 256))
"""Head sizes for which a projector on a GPU needs no matrix of attention scores."""

OUTPUT_FIRST = frozenset(("gemma3n", "gemma4"))
"""An output matrix made of the embeddings is created before them, and so is another one on the host, too."""
REPACKED = frozenset(("IQ4_NL", "MXFP4", "Q4_0", "Q4_K"))
"""Types that are rearranged for a CPU with AVX2 (ggml_repack_get_optimal_repack_type in
ggml/src/ggml-cpu/repack.cpp)."""
REPACKED_ROWS = 8


def model_bytes(model: MemoryModel, placement: Placement, *, repacks: bool = True) -> dict[int, int]:
    """Bytes of a model's weights on each device that has any.

    Source: llama_model_loader::create_tensor in src/llama-model-loader.cpp (TENSOR_DUPLICATED), load_arch_tensors in
    src/models/*.cpp. An output matrix made of the embeddings is a copy, unless it is on the host, where they are.
    """
    devices = by_device(placement.layers, model.blocks)
    devices[HOST] = devices.get(HOST, 0) + model.host
    devices[placement.layers[0]] += model.first
    devices[placement.output] = devices.get(placement.output, 0) + model.output
    copied = placement.output != HOST or model.geometry.architecture in OUTPUT_FIRST or (repacks and _rearranged(model))
    if copied:
        devices[placement.output] += model.tied
    turning = _turning(model, placement) if model.every else set()
    for device in turning:
        devices[device] += model.every
    homes = (*placement.layers, placement.output)
    for name, device in placement.moved.items():
        size = model.sizes[name]
        block = model.homes.get(name)
        if block is not None:
            devices[placement.layers[block]] -= size
        else:
            taken = turning if model.is_copied(name) else {home_of(model, homes, name)}
            if name == "token_embd.weight" and model.tied and placement.output != HOST:
                taken = {HOST, placement.output}  # the matrix and its copy
            for home in taken:
                devices[home] -= size
        devices[device] = devices.get(device, 0) + size
    return _spread(placement, devices) if placement.shares else devices


def _rearranged(model: MemoryModel) -> bool:
    """Whether a matrix made of the embeddings is in a buffer of its own on the host (make_cpu_buft_list)."""
    matrix = model.tensors.get("token_embd.weight")
    if matrix is None or len(matrix.shape) < 2 or matrix.type not in GGML_TYPES:
        return False
    return GGML_TYPES[matrix.type].name in REPACKED and matrix.shape[1] % REPACKED_ROWS == 0


def _turning(model: MemoryModel, placement: Placement) -> set[int]:
    """Devices with a layer that reads the factors of its rotary positions from the file."""
    layers = zip(model.geometry.layers, placement.layers, strict=True)
    plain_only = model.geometry.architecture == "gemma4"  # layers within the window have none
    return {device for layer, device in layers if layer.loaded and not (plain_only and layer.window)}


def _spread(placement: Placement, devices: dict[int, int]) -> dict[int, int]:
    """With all that is on GPUs divided by their shares.

    Source: ggml_backend_split_buffer_type in ggml/src/ggml-cuda (row), llama_meta_device_get_split_state in
    src/llama-model.cpp (tensor). Both divide matrices only, by whole rows or heads, which is not followed here.
    """
    result = {HOST: devices.get(HOST, 0)}
    total = sum(size for device, size in devices.items() if device != HOST)
    for device, share in zip(placement.used, placement.shares, strict=True):
        result[device] = round(total * share)
    return result


def adapter_bytes(model: MemoryModel, placement: Placement, adapters: Sequence[GgufModel]) -> dict[int, int]:
    """Bytes of LoRA adapters: each pair is where the tensor is that it changes, in the type that the file has.

    Source: llama_adapter_lora_init_impl in src/llama-adapter.cpp.
    """
    devices: dict[int, int] = {}
    homes = (*placement.layers, placement.output)
    for adapter in adapters:
        for tensor in adapter.tensors:
            name, suffix = tensor.name.rpartition(".lora_")[::2]
            if suffix not in ("a", "b"):
                continue  # norms, which llama.cpp leaves out
            device = placement.moved.get(name, home_of(model, homes, name))
            devices[device] = devices.get(device, 0) + padded(tensor.size, ALIGNMENT)
    return devices


def projector_bytes(projector: GgufModel) -> int:
    """Bytes of a projector, all on the first GPU, with a scratch buffer that is an upper guess.

    Source: clip_model_loader and clip_image_batch_encode in tools/mtmd/clip.cpp. The scratch buffer holds the
    activations of one layer for one image of the size in the header, and attention scores where flash attention
    does not know the head size. Images of any size (qwen2vl and others) are counted with the header's.
    """
    weights = sum(padded(tensor.size, ALIGNMENT) for tensor in projector.tensors)
    most = 0
    for kind in ("vision", "audio"):
        numbers = {
            name: value if isinstance(value := projector.metadata.get(f"clip.{kind}.{name}"), int) else 0
            for name in ("image_size", "patch_size", "embedding_length", "feed_forward_length", "attention.head_count")
        }
        width, heads = numbers["embedding_length"], numbers["attention.head_count"]
        if kind == "audio":
            tokens = 1500 if width else 0  # 30 seconds
        else:
            tokens = (numbers["image_size"] // max(numbers["patch_size"], 1)) ** 2
        activations = tokens * (4 * width + 2 * numbers["feed_forward_length"])
        scores = 0 if heads and width // heads in FLASH_HEADS else tokens * tokens * heads
        most = max(most, (activations + scores) * SCORES)
    return weights + most
