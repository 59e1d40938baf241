"""The arguments of llama-server, from the typed fields."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING
from typing import TypeAlias

from llamamodel_operator.api.engine import MOST_THREADS, FlashAttention
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = ["PORT", "build_argv", "escape_references"]

PORT = 8080
"""TCP port of llama-server, in the container and in the Service."""

_FLASH_ATTENTION = {FlashAttention.AUTO: "auto", FlashAttention.ENABLED: "on", FlashAttention.DISABLED: "off"}

_Flag: TypeAlias = tuple[str, str | int | None]


def build_argv(model: LlamaModel, *, model_path: str) -> tuple[str, ...]:
    """Arguments for the container, without the program itself.

    What the user left out is left to llama-server, except what depends on Kubernetes: layers on the GPU (none
    where no GPU was asked for) and threads (the CPU limit, which llama-server does not look at).

    Args:
        model: the LlamaModel.
        model_path: where the GGUF file is inside the container.
    """
    return tuple(part for flag in _flags(model, model_path) for part in _words(flag))


def escape_references(value: str) -> str:
    """The value such that the kubelet passes it on as it is: it replaces `$(NAME)`, and reads `$$` as `$`."""
    return value.replace("$", "$$")


def _flags(model: LlamaModel, model_path: str) -> Iterator[_Flag]:
    spec, engine = model.spec, model.spec.engine
    yield "--model", model_path
    yield "--alias", model.served_name
    yield "--host", "0.0.0.0"  # noqa: S104 (inside the pod's own network namespace)
    yield "--port", PORT
    if engine.context_size is not None:
        yield "--ctx-size", engine.context_size
    if engine.parallel_slots is not None:
        yield "--parallel", engine.parallel_slots
    yield "--n-gpu-layers", _gpu_layers(spec)
    if engine.batch_size is not None:
        yield "--batch-size", engine.batch_size
    if engine.micro_batch_size is not None:
        yield "--ubatch-size", engine.micro_batch_size
    if (threads := _threads(spec)) is not None:
        yield "--threads", threads
    if engine.flash_attention is not None:
        yield "--flash-attn", _FLASH_ATTENTION[engine.flash_attention]
    if engine.cache_type_k is not None:
        yield "--cache-type-k", engine.cache_type_k
    if engine.cache_type_v is not None:
        yield "--cache-type-v", engine.cache_type_v
    if spec.endpoints.metrics:
        yield "--metrics", None
    yield ("--slots" if spec.endpoints.slots else "--no-slots"), None


def _gpu_layers(spec: LlamaModelSpec) -> str | int:
    if spec.engine.gpu_layers is not None:
        return spec.engine.gpu_layers
    return "auto" if spec.gpu else 0


def _threads(spec: LlamaModelSpec) -> int | None:
    if spec.engine.threads is not None:
        return spec.engine.threads
    limits = (spec.resources.limits if spec.resources else None) or {}
    if "cpu" not in limits:
        return None
    cores = parse_quantity(limits["cpu"]).to_integral_value(rounding=ROUND_CEILING)
    return min(max(int(cores), 1), MOST_THREADS)


def _words(flag: _Flag) -> Iterator[str]:
    name, value = flag
    yield name
    if value is not None:
        yield escape_references(str(value))
