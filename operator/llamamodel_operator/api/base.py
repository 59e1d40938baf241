"""What every type of the API shares: camelCase on the wire, snake_case in Python, immutable values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

GROUP = "llamamodel.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LlamaModel"
PLURAL = "llamamodels"

__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION", "ApiModel", "cel", "kubernetes_type"]


class ApiModel(BaseModel):
    """Base of all types. Unknown fields are ignored here: the API server has already refused or pruned them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON form that the API server stores: camelCase, unset and None fields left out."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def cel(*rules: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """CEL validations for the CRD.

    Each rule is (expression, message) or (expression, message, messageExpression); the plain message is what
    is shown should the message expression fail.
    """
    return {"x-kubernetes-validations": list(_validations(rules))}


def _validations(rules: Iterable[tuple[str, ...]]) -> Iterable[dict[str, str]]:
    for expression, message, *message_expression in rules:
        yield {"rule": expression, "message": message} | (
            {"messageExpression": message_expression[0]} if message_expression else {}
        )


def kubernetes_type(name: str) -> dict[str, str]:
    """Marks a field whose schema is Kubernetes' own type, such as `core.v1.Toleration`; the CRD gets it in full."""
    return {"x-llamamodel-kubernetes-type": name}
