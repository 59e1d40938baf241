"""What the status says of the files and of memory: small, and the same as long as the plan is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llamamodel_operator.api.status import (
    ChatTemplatePresence,
    GpuMemoryStatus,
    HostMemoryStatus,
    MeasuredMemoryStatus,
    MemoryStatus,
    ModelStatus,
)
from llamamodel_operator.core.engine.buffer_log import Measured
from llamamodel_operator.core.fits import Fits
from llamamodel_operator.core.gguf.ggml_types import FILE_TYPES, GGML_TYPES
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.memory.estimate import DeviceMemory, MemoryEstimate
from llamamodel_operator.core.sizes import mebibytes, shown_size

__all__ = ["memory_status", "model_status"]

_LONGEST_NAME = 253
_MOST_REASONS = 16
_INT64 = 2**63 - 1


def model_status(inspection: Inspection | None) -> ModelStatus | None:
    """What the headers say; None before they were read."""
    if inspection is None or not inspection.done or inspection.model is None:
        return None
    model = inspection.model
    quantization = _quantization(model)
    template = model.text("tokenizer.chat_template") or model.lengths.get("tokenizer.chat_template")
    return ModelStatus(
        architecture=_printable(model.architecture),
        name=_printable(model.text("general.name")),
        parameters=min(sum(_elements(tensor.shape) for tensor in model.tensors), _INT64),
        quantization=quantization,
        summary="/".join(part for part in (_printable(model.architecture), quantization) if part),
        size_bytes=sum(part.size for part in model.parts),
        files=len(model.parts),
        layers=_number(model, "block_count"),
        context_length=_number(model, "context_length"),
        chat_template=ChatTemplatePresence.PRESENT if template else ChatTemplatePresence.ABSENT,
        digest=inspection.digest,
    )


def _quantization(model: GgufModel) -> str | None:
    """As the file says; else the type that most of its bytes have."""
    said = model.metadata.get("general.file_type")
    if isinstance(said, int) and said in FILE_TYPES:
        return FILE_TYPES[said]
    sizes: dict[int, int] = {}
    for tensor in model.tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    most = max(sizes, key=lambda number: sizes[number], default=None)
    return GGML_TYPES[most].name if most is not None and most in GGML_TYPES else None


def _elements(shape: Iterable[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _number(model: GgufModel, key: str) -> int | None:
    found = model.metadata.get(f"{model.architecture}.{key}")
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**31 else None


def _printable(text: str) -> str | None:
    return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]", "?", text)[:_LONGEST_NAME] or None


def memory_status(
    estimate: MemoryEstimate | None, fits: Fits, *, largest_context: int | None, measured: Measured | None
) -> MemoryStatus | None:
    """The estimate as quantities; None where there is none."""
    if estimate is None:
        return None
    available = None if fits.available is None else mebibytes(fits.available)
    fullest = max((gpu.total for gpu in estimate.gpus), default=None)
    return MemoryStatus(
        gpus=[
            GpuMemoryStatus(**_amounts(gpu), overhead=_amount(gpu.overhead), available=available)
            for gpu in estimate.gpus
        ],
        host=HostMemoryStatus(
            **_amounts(estimate.host),
            output=_amount(estimate.host.output),
            prompt_cache=_amount(estimate.host.prompt_cache),
        ),
        fits=fits.status.value,
        summary=_summary(estimate, fullest, fits),
        context_size=estimate.context_size,
        max_context_size=largest_context,
        gpu_layers=estimate.gpu_layers,
        uncertain=list(estimate.uncertain[:_MOST_REASONS]) or None,
        measured=_measured(measured),
    )


def _summary(estimate: MemoryEstimate, fullest: int | None, fits: Fits) -> str:
    if fullest is None:
        return f"{shown_size(estimate.host.total)} host"
    return f"{shown_size(fullest)}/{'?' if fits.available is None else shown_size(fits.available)}"


def _amounts(device: DeviceMemory) -> dict[str, str | None]:
    names = ("weights", "kv_cache", "recurrent_state", "compute", "adapters", "projector")
    return {**{name: _amount(getattr(device, name)) for name in names}, "total": mebibytes(device.total)}


def _amount(size_bytes: int) -> str | None:
    return mebibytes(size_bytes) if size_bytes else None


def _measured(measured: Measured | None) -> MeasuredMemoryStatus | None:
    if measured is None:
        return None
    return MeasuredMemoryStatus(
        gpus=[mebibytes(gpu.memory.total) for gpu in measured.gpus], host=mebibytes(measured.host.total)
    )
