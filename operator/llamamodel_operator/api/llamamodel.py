"""A LlamaModel as read from the API server: identity, spec, raw status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.spec import LlamaModelSpec

__all__ = ["InvalidLlamaModelError", "LlamaModel", "with_defaults"]


_CHOICES = ("chatTemplate", "grammar", "systemPrompt")


class InvalidLlamaModelError(ValueError):
    """A stored LlamaModel that the types refuse, for example one older than a rule of the CRD.

    The message names each field, what was found and what is expected.

    Attributes:
        problems: path of each field, and what is wrong with it.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))


@dataclass(frozen=True, kw_only=True)
class LlamaModel:
    """One LlamaModel. `status` is the raw stored status, to be compared, never trusted."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: LlamaModelSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> LlamaModel:
        """From an object as the API server has it.

        Args:
            raw: the object.
            defaults: a part of a spec that holds where the object's own says nothing.

        Raises:
            InvalidLlamaModelError: the types refuse it.
        """
        metadata = raw["metadata"]
        if not isinstance(raw.get("spec") or {}, Mapping):
            raise InvalidLlamaModelError([("spec", f"must be an object; found {raw['spec']!r}"[:200])])
        try:
            spec = LlamaModelSpec.model_validate(with_defaults(raw.get("spec") or {}, defaults or {}))
        except ValidationError as error:
            raise InvalidLlamaModelError(_problems(error)) from None
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            spec=spec,
            status=raw.get("status") or {},
            annotations=metadata.get("annotations") or {},
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


def with_defaults(spec: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as it is written, with what it says nothing about."""
    return _merged(defaults, spec)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both; where both have one, objects are merged and everything else is taken from above. A choice
    of exactly one source is taken as a whole."""
    return {**below, **{key: _merged_value(key, below.get(key), value) for key, value in above.items()}}


def _merged_value(key: str, below: Any, above: Any) -> Any:
    if key in _CHOICES or not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return _merged(below, above)


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    return [
        (
            _path(problem["loc"]),
            problem["msg"].removeprefix("Value error, ")
            + ("" if problem["type"] in ("missing", "value_error") else f" (found {problem['input']!r})"),
        )
        for problem in error.errors(include_url=False)
    ]


def _path(location: Sequence[str | int]) -> str:
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
