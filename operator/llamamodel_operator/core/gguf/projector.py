"""Multimodal projectors: what one says of itself, and whether it fits a model.

As mtmd_context in tools/mtmd/mtmd.cpp and clip_n_mmproj_embd in tools/mtmd/clip.cpp of llama.cpp decide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown

__all__ = ["Projector", "check_projector", "projector_of"]

_ARCHITECTURE = "clip"
_KINDS = ("vision", "audio")

_WIDTHS = MappingProxyType(
    {
        "dots_ocr": ("mm.2.weight", 1),
        "gemma3": ("mm.input_projection.weight", 0),
        "gemma3nv": ("mm.input_projection.weight", 0),
        "gemma4uv": ("mm.input_projection.weight", 1),
        "gemma4v": ("mm.input_projection.weight", 1),
        "idefics3": ("mm.model.fc.weight", 1),
        "internvl": ("mm.model.mlp.3.weight", 1),
        "kimivl": ("mm.2.weight", 1),
        "lightonocr": ("mm.2.weight", 1),
        "llama4": ("mm.model.fc.weight", 1),
        "mlp": ("mm.2.weight", 1),
        "phi4": ("mm.2.weight", 1),
        "pixtral": ("mm.2.weight", 1),
        "qwen2.5vl_merger": ("mm.2.bias", 0),
        "qwen2a": ("mm.a.fc.weight", 1),
        "qwen2vl_merger": ("mm.2.bias", 0),
        "qwen3vl_merger": ("mm.2.bias", 0),
        "resampler": ("resampler.proj.weight", 0),
        "ultravox": ("mm.a.mlp.2.weight", 1),
        "voxtral": ("mm.a.mlp.2.weight", 1),
    }
)
"""Type of projector → the tensor, and the dimension of it, that is as wide as the model's embedding."""


@dataclass(frozen=True, kw_only=True)
class Projector:
    """A multimodal projector.

    Attributes:
        type: such as gemma3; of a file for images and sound the one for images.
        inputs: vision, audio or both.
        embedding_width: of the model that it is for; None where the type is not known well enough to tell.
    """

    type: str
    inputs: tuple[str, ...]
    embedding_width: int | None


def projector_of(model: GgufModel, *, file: str) -> Projector:
    """What the projector at the path `file` says.

    Raises:
        GgufError: it is no projector.
    """
    if model.architecture != _ARCHITECTURE:
        raise _error(
            file,
            f"general.architecture is {shown(model.architecture) or 'not there'}, expected {_ARCHITECTURE}: this is "
            "no multimodal projector; such files are often named mmproj",
        )
    keys = ("clip.projector_type", *(f"clip.{kind}.projector_type" for kind in _KINDS))
    type_ = next((text for key in keys if (text := model.text(key))), "")
    inputs = tuple(kind for kind in _KINDS if model.metadata.get(f"clip.has_{kind}_encoder") is True)
    return Projector(type=type_, inputs=inputs, embedding_width=_width(model, type_))


def check_projector(projector: GgufModel, *, base: GgufModel, file: str) -> None:
    """Whether llama-server takes the projector at the path `file` for the model.

    Raises:
        GgufError: it does not.
    """
    found = projector_of(projector, file=file)
    expected = base.metadata.get(f"{base.architecture}.embedding_length")
    if found.embedding_width is None or not isinstance(expected, int) or found.embedding_width == expected:
        return
    raise _error(
        file,
        f"it makes embeddings of {found.embedding_width:,}, but those of the model are {expected:,}: take the "
        "projector that was published with this model",
    )


def _width(model: GgufModel, type_: str) -> int | None:
    name, dimension = _WIDTHS.get(type_, ("", 0))
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    if type_ == "mlp" and "mm.3.weight" in shapes:
        return None  # another type by the same name: PROJECTOR_TYPE_MLP_NORM
    shape = shapes.get(name, ())
    return shape[dimension] if dimension < len(shape) else None


def _error(file: str, message: str) -> GgufError:
    return GgufError(GgufProblem.PROJECTOR_INCOMPATIBLE, file=file, message=message)
