"""LoRA adapters: what one says of itself, and whether it fits a model.

As llama_adapter_lora_init_impl in src/llama-adapter.cpp of llama.cpp decides it when the server starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamamodel_operator.core.gguf.model import GgufModel, Tensor
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown

__all__ = ["Adapter", "adapter_of", "check_adapter"]

_FACTORS = (".lora_a", ".lora_b")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        architecture: of the model that it is for.
        alpha: its strength; llama.cpp scales by alpha / rank.
        ranks: of the targets, each once, ascending.
        targets: tensors of the model that it changes.
    """

    architecture: str
    alpha: float
    ranks: tuple[int, ...]
    targets: tuple[str, ...]


def adapter_of(model: GgufModel, *, file: str) -> Adapter:
    """What the adapter at the path `file` says.

    Raises:
        GgufError: it is no LoRA adapter, or is not complete.
    """
    for key, expected in (("general.type", "adapter"), ("adapter.type", "lora")):
        if model.text(key) != expected:
            found = shown(model.text(key)) or "nothing"
            raise _error(file, f"{key} is {found}, expected {expected}: this is no LoRA adapter in GGUF's form")
    pairs = _pairs(model, file=file)
    alpha = model.metadata.get("adapter.lora.alpha")
    return Adapter(
        architecture=model.architecture,
        alpha=float(alpha) if isinstance(alpha, int | float) else 0.0,
        ranks=tuple(sorted({_lengths(second)[0] for _, second in pairs.values()})),
        targets=tuple(pairs),
    )


def check_adapter(adapter: GgufModel, *, base: GgufModel, file: str) -> None:
    """Whether llama-server applies the adapter at the path `file` to the model.

    Raises:
        GgufError: it does not; the message names the tensor.
    """
    found = adapter_of(adapter, file=file)
    if found.architecture != base.architecture:
        raise _error(
            file,
            f"it is for models of the architecture {shown(found.architecture) or '(none)'}, but the model is "
            f"{shown(base.architecture)}: take an adapter that was made for this model",
        )
    tensors = {tensor.name: tensor for tensor in base.tensors}
    for name, (first, second) in _pairs(adapter, file=file).items():
        target = tensors.get(name)
        if target is None:
            raise _error(
                file,
                f"it changes the tensor {shown(name)}, which the model does not have: take an adapter that was made "
                "for this model",
            )
        _check_shapes(target, first=first, second=second, file=file)


def _check_shapes(target: Tensor, *, first: Tensor, second: Tensor, file: str) -> None:
    columns, rows = _lengths(target)
    # the factors of the token embedding are stored the other way round
    embedding = target.name.endswith("token_embd.weight")
    found = (_lengths(second)[1], _lengths(first)[1]) if embedding else (_lengths(first)[0], _lengths(second)[1])
    if found != (columns, rows):
        raise _error(
            file,
            f"its factors of {shown(target.name)} make {found[0]:,} x {found[1]:,}, but the model's tensor is "
            f"{columns:,} x {rows:,}: take an adapter that was made for this model",
        )
    if not embedding and _lengths(first)[1] != _lengths(second)[0]:
        raise _error(
            file,
            f"the factors of {shown(target.name)} have different ranks, {_lengths(first)[1]:,} and "
            f"{_lengths(second)[0]:,}: the adapter is of an old form; convert it again",
        )


def _pairs(model: GgufModel, *, file: str) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Target → its two factors."""
    factors: dict[str, dict[str, Tensor]] = {}
    for tensor in model.tensors:
        suffix = tensor.name[-len(_FACTORS[0]) :]
        if suffix in _FACTORS:
            factors.setdefault(tensor.name.removesuffix(suffix), {})[suffix] = tensor
        elif not tensor.name.endswith("_norm.weight"):  # which llama.cpp passes over
            raise _error(file, f"it has a tensor {shown(tensor.name)}, expected {' and '.join(_FACTORS)} alone")
    for name, pair in factors.items():
        for suffix in _FACTORS:
            if suffix not in pair:
                raise _error(file, f"the tensor {shown(name)}{suffix} is missing: the adapter is not complete")
    return {name: (pair[_FACTORS[0]], pair[_FACTORS[1]]) for name, pair in factors.items()}


def _lengths(tensor: Tensor) -> tuple[int, int]:
    """Of the first two dimensions."""
    columns, rows, *_ = (*tensor.shape, 1, 1)
    return columns, rows


def _error(file: str, message: str) -> GgufError:
    return GgufError(GgufProblem.ADAPTER_INCOMPATIBLE, file=file, message=message)
