"""Whether llama.cpp loads a file as a model at all; its format and its kind, before anything else is asked of it."""

from __future__ import annotations

from types import MappingProxyType

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem

__all__ = ["check_loadable", "check_model"]

_WHAT = MappingProxyType({"adapter": "a LoRA adapter", "mmproj": "a multimodal projector", "imatrix": "statistics"})


def check_loadable(model: GgufModel, *, file: str) -> None:
    """Whether llama.cpp takes the format: gguf_init_from_reader in ggml/src/gguf.cpp.

    Raises:
        GgufError: it does not.
    """
    if model.version == 1:
        raise GgufError(
            GgufProblem.UNSUPPORTED_VERSION,
            file=file,
            message="this is version 1 of GGUF, which llama.cpp no longer loads: convert the model again",
        )
    if model.big_endian:
        raise GgufError(
            GgufProblem.UNSUPPORTED_VERSION,
            file=file,
            message="this file is for big-endian machines, expected little-endian: take the usual file, or convert it "
            "with gguf_convert_endian.py of llama.cpp",
        )


def check_model(model: GgufModel, *, file: str) -> None:
    """Whether it is a model at all.

    Raises:
        GgufError: it is not, or llama.cpp does not take its format.
    """
    check_loadable(model, file=file)
    kind = "mmproj" if model.architecture == "clip" else model.text("general.type")
    if kind in _WHAT:
        raise GgufError(
            GgufProblem.INVALID_HEADER,
            file=file,
            message=f"this is {_WHAT[kind]}, expected a model: name the model's own file",
        )
    if not model.architecture:
        raise GgufError(
            GgufProblem.INVALID_HEADER,
            file=file,
            message="general.architecture is missing, without which llama.cpp loads no model",
        )
