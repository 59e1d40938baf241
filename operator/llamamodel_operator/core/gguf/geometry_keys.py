"""A model's metadata by keys without the architecture's prefix, checked as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamamodel_operator.core.gguf.geometry import UnsupportedModelError
from llamamodel_operator.core.gguf.model import GgufModel

__all__ = ["Keys"]

LARGEST = 2**32 - 1


@dataclass(frozen=True)
class Keys:
    """Of one model and its architecture."""

    model: GgufModel
    architecture: str

    def whole(self, name: str, default: int | None = None) -> int:
        """A number; the default where the key is missing."""
        key = f"{self.architecture}.{name}"
        value = self.model.metadata.get(key)
        if value is None:
            if default is None or key in self.model.lengths:
                raise UnsupportedModelError(
                    f"the header has no number under {key}, which llama.cpp needs to load a model of architecture "
                    f"{self.architecture}; convert the model again"
                )
            return default
        return self.checked(key, value)

    def checked(self, key: str, value: Any) -> int:
        if isinstance(value, bool | int) and 0 <= value <= LARGEST:
            return int(value)
        raise UnsupportedModelError(
            f"{key} is {str(value)[:40]!r}, expected a whole number from 0 to {LARGEST}; convert the model again"
        )

    def has(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self.model.metadata

    def several(self, name: str) -> list[int] | None:
        """An array of numbers; None where there is no array under the key."""
        key = f"{self.architecture}.{name}"
        value = self.model.metadata.get(key)
        if isinstance(value, tuple):
            return [self.checked(key, item) for item in value]
        return None

    def per_layer(self, name: str, layers: int, default: int | None = None) -> list[int]:
        """One number per layer, of an array or of a single number (llama_model_loader::get_key_or_arr)."""
        several = self.several(name)
        if several is None:
            return [self.whole(name, default)] * layers
        if len(several) < layers:
            raise UnsupportedModelError(
                f"{self.architecture}.{name} has {len(several)} numbers, expected one for each of {layers} layers; "
                "convert the model again"
            )
        return several[:layers]
