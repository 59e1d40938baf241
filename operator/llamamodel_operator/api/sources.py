"""Where files and texts come from: volumes, ConfigMaps, the manifest itself."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from llamamodel_operator.api.base import ApiModel, OneOf, cel, matching

__all__ = [
    "LONGEST_TEXT",
    "OBJECT_NAME",
    "BuiltinGrammar",
    "ChatTemplate",
    "ConfigMapKey",
    "GgufFile",
    "Grammar",
    "ModelSource",
    "PvcFile",
    "SystemPrompt",
]

LONGEST_TEXT = 262_144
"""Characters of a text in the manifest."""

OBJECT_NAME = matching(
    "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "must be the name of an object: lower case letters, digits, '-' and '.', a letter or digit at either end",
)


def _relative_file(path: str) -> str:
    if path.startswith("/"):
        raise ValueError(f"{path!r} must be relative to the root of the volume: remove the leading /")
    if ".." in path.split("/"):
        raise ValueError(f"{path!r} must not contain '..': name the file from the root of the volume")
    if path.endswith("/"):
        raise ValueError(f"{path!r} must name a file, not a folder")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise ValueError(f"{path!r} must not contain control characters")
    return path


class PvcFile(ApiModel):
    """A file on a PersistentVolumeClaim in the namespace of the LlamaModel."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253), *OBJECT_NAME]
    """Name of the PersistentVolumeClaim. It is mounted read-only."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra=cel(
                ("!self.startsWith('/')", "must be relative to the root of the volume: remove the leading /"),
                (
                    "!self.matches('(^|/)[.][.](/|$)')",
                    "must not contain '..': name the file from the root of the volume",
                ),
                ("!self.endsWith('/')", "must name a file, not a folder"),
                ("!self.matches('[[:cntrl:]]')", "must not contain control characters"),
            ),
        ),
        AfterValidator(_relative_file),
    ]
    """Path of the file, relative to the root of the volume. Of a model in several parts, the first part
    (…-00001-of-0000N.gguf); the others must lie beside it."""


class GgufFile(PvcFile):
    """A GGUF file on a PersistentVolumeClaim in the namespace of the LlamaModel."""

    sha256: Annotated[
        str | None,
        Field(min_length=64, max_length=64),
        *matching("[0-9a-f]{64}", "must be the 64 hexadecimal digits, in lower case, that sha256sum prints"),
    ] = None
    """SHA-256 of the file, as `sha256sum` prints it; of a model in several parts, of all parts one after the other
    (`cat …-000*-of-0000N.gguf | sha256sum`). The whole file is read once, before the model starts for the first time;
    when a pod starts again, size and header alone are checked. Unset: no checksum is verified."""


class ModelSource(ApiModel):
    """Where the GGUF comes from."""

    pvc: GgufFile
    """A file on a PersistentVolumeClaim."""


class ConfigMapKey(ApiModel):
    """One key of a ConfigMap in the namespace of the LlamaModel."""

    name: Annotated[str, Field(min_length=1, max_length=253), *OBJECT_NAME]
    """Name of the ConfigMap."""

    key: Annotated[
        str,
        Field(min_length=1, max_length=253),
        *matching("[-._a-zA-Z0-9]+", "must be a key of a ConfigMap: letters, digits, '-', '_' and '.'"),
    ]
    """Key whose value is taken."""


Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]


class ChatTemplate(OneOf):
    """How a conversation becomes a prompt. Exactly one source."""

    preset: Annotated[
        str | None,
        Field(min_length=1, max_length=64),
        *matching("[-._a-zA-Z0-9]+", "must be the name of a chat template that is built into llama-server"),
    ] = None
    """Name of a chat template that is built into llama-server, such as chatml. `llamamodel flags` lists them."""

    inline: Text | None = None
    """A Jinja template."""

    config_map_key_ref: ConfigMapKey | None = None
    """A Jinja template in a ConfigMap. A change of it rolls the pods."""

    pvc: PvcFile | None = None
    """A Jinja template in a file on a PersistentVolumeClaim. A change of it is not seen."""


class BuiltinGrammar(StrEnum):
    """Grammars that come with the operator."""

    JSON = "json"
    JSON_ARRAY = "json-array"
    JSON_OBJECT = "json-object"
    LIST = "list"
    YES_NO = "yes-no"
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"
    URI = "uri"
    CSV = "csv"


class Grammar(OneOf):
    """What every answer must conform to, unless the request brings its own. Tool calls do not work under it.
    Exactly one source."""

    builtin: BuiltinGrammar | None = None
    """A grammar that comes with the operator: json, json-array, json-object, list, yes-no, integer, number, date,
    uri or csv."""

    inline: Text | None = None
    """A grammar in GBNF, the notation of llama.cpp."""

    config_map_key_ref: ConfigMapKey | None = None
    """A grammar in GBNF in a ConfigMap. A change of it rolls the pods."""

    pvc: PvcFile | None = None
    """A grammar in GBNF in a file on a PersistentVolumeClaim. A change of it is not seen."""

    json_schema: Text | None = None
    """A JSON Schema, as JSON text, that every answer must be valid under."""


class SystemPrompt(OneOf):
    """What a conversation begins with when the request has no system message. Exactly one source."""

    inline: Annotated[str | None, Field(min_length=1, max_length=100_000)] = None
    """The prompt."""

    config_map_key_ref: ConfigMapKey | None = None
    """The prompt in a ConfigMap. A change of it rolls the pods."""
