"""API keys: what a Secret says of each, whose key a client shows, and which models that one may use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from llamamodel_operator.core.gateway.errors import bounded
from llamamodel_operator.core.gateway.routes import Routes, ServedModel

__all__ = ["Key", "KeyEntry", "KeyRing", "digest", "presented_key", "read_keys", "visible_to"]

_SHA256 = re.compile("[0-9a-fA-F]{64}")
_FIELD = re.compile("[A-Za-z0-9_]{1,24}")
"""What may be a misspelt field; what is longer may be a key."""
_BEARER = "bearer "
_LONGEST_SHOWN = 64
"""Characters of a wrong value that a message repeats."""

Names = Annotated[list[str], Field(min_length=1, max_length=1000)]


class KeyEntry(BaseModel):
    """One entry of the Secret, as it is written."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", strict=True)

    sha256: str
    """Of the key, in hexadecimal."""
    namespaces: Names | None = None
    """Whose models the key may use. Unset: all."""
    models: Names | None = None
    """Which models the key may use, by full or bare names, each with all its adapters. Unset: all. With `namespaces`:
    these among theirs."""
    requests_per_minute: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Unset: any number."""
    concurrency: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Requests at a time. Unset: any number."""

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, value: str) -> str:
        if not _SHA256.fullmatch(value):
            # not the value itself: people put the key here
            raise ValueError(f"expected the key's SHA-256, 64 hexadecimal digits, found {len(value)} characters")
        return value.lower()


@dataclass(frozen=True, kw_only=True)
class Key:
    """Attributes:
    name: of the entry: for logs and metrics.
    entry: what it may do.
    content: of the entry, as it was read.
    """

    name: str
    entry: KeyEntry
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class KeyRing:
    """All keys, by the SHA-256 of each. To find one takes a time that tells nothing of what the others are: what is
    compared are digests, which nobody can choose."""

    by_digest: Mapping[str, Key] = field(default_factory=dict)

    def find(self, presented: str) -> Key | None:
        return self.by_digest.get(digest(presented))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(key.name for key in self.by_digest.values())


def digest(key: str) -> str:
    """SHA-256 in hexadecimal. No salt and no slow hash: keys are random, of 256 bits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def presented_key(headers: Mapping[str, str]) -> str | None:
    """What a client shows, as OpenAI's clients (`Authorization: Bearer`) or Anthropic's (`x-api-key`) do; None where
    it shows nothing. `headers` find names in any case."""
    authorization = headers.get("Authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip() or None
    return headers.get("x-api-key", "").strip() or None


def read_keys(files: Mapping[str, bytes], *, known: KeyRing) -> tuple[KeyRing, tuple[str, ...]]:
    """The keys of a Secret, and what is wrong with entries. One that is wrong stays what it was.

    Args:
        files: content of each entry, by its name.
        known: what was read before; entries that are as they were are not read again.
    """
    before = {key.name: key for key in known.by_digest.values()}
    found, problems = dict[str, Key](), list[str]()
    for name in sorted(files):
        key = before.get(name)
        try:
            if key is None or key.content != files[name]:
                key = Key(name=name, entry=_entry(files[name]), content=files[name])
        except ValueError as error:
            problems.append(f"{name}: {error}; {'what was known of it holds' if key else 'it opens nothing'}")
        if key is None:
            continue
        first = found.setdefault(key.entry.sha256, key)
        if first is not key:
            problems.append(f"{name}: expected a key of its own, found that of {first.name}, which holds")
    return KeyRing(found), tuple(problems)


def _entry(content: bytes) -> KeyEntry:
    """Raises ValueError, whose message repeats nothing that may be a key."""
    try:
        document: Any = yaml.safe_load(content)
    except RecursionError:
        raise ValueError("expected YAML or JSON with fewer levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"expected YAML or JSON, found something else{where}") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected an object with `sha256`, found {_kind(document)}")
    try:
        return KeyEntry.model_validate(document)
    except ValidationError as error:
        raise ValueError("; ".join(_explained(error))) from None


def _explained(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "missing":
                yield f"{where}: expected, not found"
            case "extra_forbidden":
                known = ", ".join(str(one.alias) for one in KeyEntry.model_fields.values())
                yield f"{where if _FIELD.fullmatch(where) else 'a field'}: expected one of {known}"
            case "value_error":
                yield f"{where}: {problem['msg'].removeprefix('Value error, ')}"
            case _ if where == "sha256":
                yield f"{where}: expected a text of 64 hexadecimal digits, found {_kind(problem['input'])}"
            case _:
                found = bounded(repr(problem["input"]), longest=_LONGEST_SHOWN)
                yield f"{where}: {problem['msg']}, found {found}"


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "a number or the like"


def visible_to(key: KeyEntry, routes: Routes) -> Routes:
    """The names of models that a key may use; to its holder no others are there."""
    named = None if key.models is None else _meant(key.models, routes)

    def may_use(model: ServedModel) -> bool:
        allowed = key.namespaces is None or model.namespace in key.namespaces
        return allowed and (named is None or model.full_name in named)

    return Routes(
        {name: model for name, model in routes.by_name.items() if may_use(model)},
        tuple(model for model in routes.shadowed if may_use(model)),
    )


def _meant(names: Sequence[str], routes: Routes) -> frozenset[str]:
    return frozenset(routes.by_name[name].full_name for name in names if name in routes.by_name)
