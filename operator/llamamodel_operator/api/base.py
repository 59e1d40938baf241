"""What every type of the API shares: camelCase on the wire, snake_case in Python, immutable values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

GROUP = "llamamodel.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LlamaModel"
PLURAL = "llamamodels"

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "ApiModel",
    "OneOf",
    "cel",
    "cel_string",
    "kubernetes_type",
    "matching",
]


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


class OneOf(ApiModel):
    """Base of types of which exactly one field must be given; the API server and the types both check it."""

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _message(cls) -> str:
        *others, last = cls._names()
        return f"exactly one of {', '.join(others)} and {last} must be given"

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        given = ", ".join(f"has(self.{name})" for name in cls._names())
        handler.resolve_ref_schema(schema).update(cel((f"[{given}].filter(x, x).size() == 1", cls._message())))
        return schema

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [
            field.alias or name for name, field in type(self).model_fields.items() if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(f"{self._message()}; found {' and '.join(given) or 'none'}")
        return self


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


def matching(pattern: str, message: str) -> tuple[Any, ...]:
    """Metadata of a string that the pattern must describe as a whole: checked alike by the API server and the types.

    The pattern is in what RE2 and Python's `re` have in common.
    """
    compiled = re.compile(pattern)

    def check(value: str | None) -> str | None:
        if value is not None and not compiled.fullmatch(value):
            raise ValueError(f"{value!r} {message}")
        return value

    return Field(json_schema_extra=cel((f"self.matches({cel_string(f'^(?:{pattern})$')})", message))), AfterValidator(
        check
    )


def cel_string(text: str) -> str:
    """The text as a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
