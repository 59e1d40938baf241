"""Headers of models as an inspection finds them, without files: `an_8b()`, `inspected(an_8b())`."""

from __future__ import annotations

from typing import Any

from gguf.constants import GGMLQuantizationType

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.gguf.model import GgufModel, Part, Tensor
from llamamodel_operator.core.inspection import Inspection, InspectionState, files_digest
from llamamodel_operator.core.inventory import NodeGpus
from support.gguf import layer_tensors, llama_metadata, tensor_size

GIB = 1 << 30


def a_header(
    *,
    type_name: str = "Q8_0",
    chat_template: str = "",
    architecture: str = "llama",
    digest: str = "d" * 64,
    **figures: int,
) -> GgufModel:
    """A dense llama of these figures; see `llama_metadata`."""
    shapes = {name: number for name, number in figures.items() if name not in ("context",)}
    tensors = tuple(
        Tensor(name=name, type=int(GGMLQuantizationType[kind]), shape=shape, size=tensor_size(kind, shape))
        for name, kind, shape in layer_tensors(type_name=type_name, **shapes)
    )
    metadata: dict[str, Any] = {**llama_metadata(architecture=architecture, **figures), "general.file_type": 7}
    if chat_template:
        metadata["tokenizer.chat_template"] = chat_template
    size = sum(tensor.size for tensor in tensors)
    return GgufModel(
        parts=(Part(name="model.gguf", size=size + 65536, header_size=65536, header_digest=digest),),
        metadata=metadata,
        lengths={},
        tensors=tensors,
    )


def an_8b(**more: Any) -> GgufModel:
    """8 billion weights in Q8_0, about 8 GiB; 128 Ki tokens of context take 16 GiB more."""
    figures = {
        "layers": 32,
        "embedding": 4096,
        "heads": 32,
        "kv_heads": 8,
        "feed_forward": 14336,
        "vocabulary": 128256,
        "context": 131072,
    }
    return a_header(**{**figures, **more})


def inspected(model: GgufModel) -> Inspection:
    """All is well with it."""
    return Inspection(
        state=InspectionState.DONE,
        reason=Reason.INSPECTED,
        message="1 file read; the headers are valid and fit together",
        key="0123456789",
        digest=files_digest([model]),
        content=repr(model),
        model=model,
    )


def a_node(
    name: str = "gpu-a",
    *,
    memory_mib: int | None = 24576,
    gpus: int = 1,
    resource: str = "nvidia.com/gpu",
    taints: tuple[dict[str, str], ...] = (),
    **labels: str,
) -> NodeGpus:
    """With GPUs of that size, as GPU feature discovery says; `gpu_replicas="4"` is nvidia.com/gpu.replicas."""
    said = {f"nvidia.com/{key.replace('_', '.')}": value for key, value in labels.items()}
    memory = {} if memory_mib is None else {f"{resource}.memory": str(memory_mib)}
    return NodeGpus(name=name, labels={**memory, **said}, taints=taints, allocatable={resource: gpus})


def facts_of(model: GgufModel, *nodes: NodeGpus, **more: Any) -> Facts:
    """The file is known, and these are the nodes."""
    return Facts(inspection=inspected(model), nodes=nodes, **more)
