"""A LlamaModel as read from the API server: identity, spec, raw status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = ["InvalidLlamaModelError", "LlamaModel"]


class InvalidLlamaModelError(ValueError):
    """A stored LlamaModel that the types refuse, for example one older than a rule of the CRD.

    The message names each field, what was found and what is expected.
    """


@dataclass(frozen=True, kw_only=True)
class LlamaModel:
    """One LlamaModel. `status` is the raw stored status, to be compared, never trusted."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: LlamaModelSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> LlamaModel:
        """Raises InvalidLlamaModelError."""
        metadata = raw["metadata"]
        try:
            spec = LlamaModelSpec.model_validate(raw.get("spec") or {})
        except ValidationError as error:
            raise InvalidLlamaModelError("; ".join(_sentences(error))) from None
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            spec=spec,
            status=raw.get("status") or {},
        )

    @property
    def served_name(self) -> str:
        """The `model` of an OpenAI request."""
        return self.spec.served_model_name or self.name

    def owner_reference(self) -> dict[str, Any]:
        """Makes an object ours: the garbage collector deletes it with the LlamaModel, also while we are down."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def _sentences(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(['spec', *(str(part) for part in problem['loc'])])}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        + ("" if problem["type"] in ("missing", "value_error") else f" (found {problem['input']!r})")
        for problem in error.errors(include_url=False)
    ]
