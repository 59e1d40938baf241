"""The ConfigMap that keeps what an inspection found, so that a restart of the operator inspects nothing again."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from llamamodel_operator.api.labels import WATCH_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import (
    LONGEST_DOCUMENT_BYTES,
    FileToInspect,
    Inspection,
    InvalidDocumentError,
    inspected,
    models_of_document,
)
from llamamodel_operator.core.objects.names import child_metadata, child_name

__all__ = ["FACTS_LABEL", "TooManyFactsError", "build_facts", "facts_name", "inspection_of_facts"]

FACTS_LABEL = "llamamodel.dev/facts"
"""On ConfigMaps with facts; the value is the key of the inspection."""
_FACTS = "facts.json.gz"
_LARGEST_BYTES = 900_000
"""Of the compressed facts as base64; an object in etcd has 1 MiB."""
_GZIP = 31
"""zlib's window bits for a gzip header."""


class TooManyFactsError(ValueError):
    """They do not fit into a ConfigMap."""


def facts_name(model: LlamaModel, key: str) -> str:
    """`NAME-facts-KEY`."""
    return f"{child_name(model.name)}-facts-{key}"


def build_facts(model: LlamaModel, *, key: str, digest: str, time: str, document: bytes) -> dict[str, Any]:
    """The ConfigMap. Compressed, since the operator keeps those of all models in memory.

    Raises:
        TooManyFactsError: even so they are too many.
    """
    compressor = zlib.compressobj(wbits=_GZIP)
    text = base64.b64encode(compressor.compress(document) + compressor.flush()).decode()
    if len(text) > _LARGEST_BYTES:
        raise TooManyFactsError(f"{len(text):,} bytes, compressed; a ConfigMap takes {_LARGEST_BYTES:,}")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(model, name=facts_name(model, key), also={WATCH_LABEL: "true", FACTS_LABEL: key}),
        "data": {"digest": digest, "time": time},
        "binaryData": {_FACTS: text},
    }


def inspection_of_facts(raw: Mapping[str, Any], *, files: Sequence[FileToInspect], key: str) -> Inspection:
    """What was found then. Trusts nothing: others may write ConfigMaps.

    Raises:
        InvalidDocumentError: it does not hold the facts about these files.
    """
    try:
        packed = base64.b64decode((raw.get("binaryData") or {})[_FACTS], validate=True)
        text = zlib.decompressobj(wbits=_GZIP).decompress(packed, LONGEST_DOCUMENT_BYTES + 1)
        time = (raw.get("data") or {})["time"]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error, zlib.error) as error:
        raise InvalidDocumentError(f"no readable {_FACTS}: {type(error).__name__}: {error}") from None
    if not isinstance(time, str):
        raise InvalidDocumentError("its time is no text")
    return inspected(models_of_document(text, files=files), files=files, key=key, time=time)
