"""What inspecting a model's files gave: which files, the verdict, and the facts that are kept of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.sources import GgufFile
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem

__all__ = [
    "BAD_REASONS",
    "LONGEST_DOCUMENT_BYTES",
    "FileToInspect",
    "Inspection",
    "InspectionState",
    "InvalidDocumentError",
    "Role",
    "Verdict",
    "document_of",
    "files_digest",
    "files_of",
    "inspected",
    "inspection_key",
    "inspection_off",
    "models_of_document",
    "not_inspected",
    "reason_of",
]

LONGEST_DOCUMENT_BYTES = 8 * 1024 * 1024
"""Of the facts about all files of a model; a thousand tensors take 150 kB."""
_LONGEST_MESSAGE_BYTES = 4096
"""Of a termination message; the kubelet cuts what is longer."""
_LONGEST_SENTENCE = 2000


class InspectionState(StrEnum):
    """How far an inspection is."""

    PENDING = "pending"
    DONE = "done"
    BAD = "bad"
    UNKNOWN = "unknown"


class Role(StrEnum):
    """What a file is to the model."""

    MODEL = "model"
    ADAPTER = "adapter"
    PROJECTOR = "projector"
    DRAFT = "draft"


class InvalidDocumentError(ValueError):
    """Facts that are not what an inspection writes; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class FileToInspect:
    """One GGUF file that a spec names.

    Attributes:
        field: path of the field that names it, such as spec.model.pvc.
        claim: the PersistentVolumeClaim.
        path: relative to the root of the volume.
        sha256: of its bytes, hexadecimal; of a model in several parts, of all parts one after the other.
    """

    role: Role
    field: str
    claim: str
    path: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known about the files of a model.

    Attributes:
        reason, message: of the condition Inspected.
        key: of what was asked for, see `inspection_key`.
        digest: of the sizes and headers of all files, see `files_digest`; empty unless it is done.
        content: digest of all facts, which others may have written; empty unless it is done.
        time: when it was done, as Kubernetes writes it.
        model, adapters, projector, draft: what the headers say; adapters in the order of the spec.
        checks_at_start: nobody could inspect before a pod starts, so that pods begin with an inspection of their own.
    """

    state: InspectionState
    reason: Reason
    message: str
    key: str = ""
    digest: str = ""
    content: str = ""
    time: str = ""
    model: GgufModel | None = None
    adapters: tuple[GgufModel, ...] = ()
    projector: GgufModel | None = None
    draft: GgufModel | None = None
    checks_at_start: bool = False

    @property
    def done(self) -> bool:
        """Whether all headers were read, and are good."""
        return self.state is InspectionState.DONE

    @property
    def size_bytes(self) -> int:
        """Of all files that were inspected; 0 where nothing is known of them."""
        models = (self.model, self.draft, self.projector, *self.adapters)
        return sum(model.size for model in models if model is not None)


def inspection_off() -> Inspection:
    """The operator's configuration has inspections off, or does not name the image that makes them."""
    return Inspection(
        state=InspectionState.UNKNOWN,
        reason=Reason.INSPECTION_OFF,
        message="the operator is not set up to inspect files (its settings inspection and operator_image)",
    )


def files_of(spec: LlamaModelSpec) -> tuple[FileToInspect, ...]:
    """The GGUF files of a spec, the model first, adapters in their order."""
    return tuple(_files(spec))


def _files(spec: LlamaModelSpec) -> Iterator[FileToInspect]:
    def file(role: Role, field: str, pvc: GgufFile) -> FileToInspect:
        return FileToInspect(role=role, field=field, claim=pvc.claim_name, path=pvc.path, sha256=pvc.sha256)

    yield file(Role.MODEL, "spec.model.pvc", spec.model.pvc)
    for index, adapter in enumerate(spec.lora_adapters or ()):
        yield file(Role.ADAPTER, f"spec.loraAdapters[{index}].pvc", adapter.pvc)
    if spec.projector:
        yield file(Role.PROJECTOR, "spec.projector.pvc", spec.projector.pvc)
    if spec.speculative:
        yield file(Role.DRAFT, "spec.speculative.draftModel.pvc", spec.speculative.draft_model.pvc)


def inspection_key(files: Sequence[FileToInspect], *, asked: str = "") -> str:
    """Names an inspection: of these files, asked for by the value of the annotation. Ten hexadecimal digits."""
    named = [[file.role, file.claim, file.path, file.sha256] for file in files]
    return hashlib.sha256(json.dumps([named, asked]).encode()).hexdigest()[:10]


def files_digest(models: Iterable[GgufModel]) -> str:
    """Of the sizes and headers of files, in the order of `files_of`. 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(model.digest for model in models).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a container that inspected or checked says at its end, in its termination message.

    Attributes:
        reason: Inspected where all is well; InspectionUnavailable where it could not look; ApiKeysUnusable where the
            pod must not start with its file of keys.
        document: SHA-256 of the document that it printed.
        expected: digest that a check compared with, see `files_digest`.
    """

    reason: Reason
    message: str = ""
    document: str = ""
    expected: str = ""

    @property
    def good(self) -> bool:
        return self.reason is Reason.INSPECTED

    @property
    def bad(self) -> bool:
        """The files are at fault, as opposed to the circumstances."""
        return self.reason in BAD_REASONS

    def to_text(self) -> str:
        """At most 4,096 bytes, which is what a termination message may have."""
        said = {"reason": self.reason, "message": self.message, "document": self.document, "expected": self.expected}
        text = json.dumps(said)
        while len(text) > _LONGEST_MESSAGE_BYTES:
            said["message"] = said["message"][: len(said["message"]) // 2].rstrip() + "…"
            text = json.dumps(said)
        return text

    @classmethod
    def parse(cls, text: str) -> Verdict | None:
        """From a termination message; None where it is none of ours."""
        if len(text) > 2 * _LONGEST_MESSAGE_BYTES:
            return None
        try:
            said = json.loads(text)
            reason = Reason(said["reason"])
            words = [said.get(name, "") for name in ("message", "document", "expected")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if not all(isinstance(word, str) for word in words):
            return None
        message, document, expected = (word.encode(errors="replace").decode() for word in words)
        verdict = cls(reason=reason, message=message[:_LONGEST_SENTENCE], document=document, expected=expected)
        return verdict if verdict.good or verdict.bad or reason in _OF_NO_FILE else None


_OF_NO_FILE = (Reason.INSPECTION_UNAVAILABLE, Reason.API_KEYS_UNUSABLE)
"""Reasons that say nothing against the model's files."""
BAD_REASONS = frozenset(
    {
        Reason.MODEL_FILE_NOT_FOUND,
        Reason.MODEL_FILE_CHANGED,
        Reason.MODEL_TRUNCATED,
        Reason.NOT_GGUF,
        Reason.UNSUPPORTED_VERSION,
        Reason.INVALID_HEADER,
        Reason.PART_MISSING,
        Reason.PART_MISMATCH,
        Reason.ADAPTER_INCOMPATIBLE,
        Reason.PROJECTOR_INCOMPATIBLE,
        Reason.DRAFT_INCOMPATIBLE,
        Reason.PERMISSION_DENIED,
        Reason.CHECKSUM_MISMATCH,
    }
)
"""With these the files are at fault: nothing is started with them."""

_LIKE = {
    GgufProblem.NOT_A_FILE: Reason.NOT_GGUF,
    GgufProblem.OUTSIDE_FOLDER: Reason.MODEL_FILE_NOT_FOUND,
    GgufProblem.TOO_LARGE: Reason.INVALID_HEADER,
    GgufProblem.NOT_THE_FIRST_PART: Reason.PART_MISMATCH,
    GgufProblem.UNREADABLE: Reason.INSPECTION_UNAVAILABLE,
}


def reason_of(problem: GgufProblem) -> Reason:
    """The reason that a condition shows; what cannot be read for a reason of its own is no bad file."""
    return _LIKE.get(problem) or Reason(problem.value)


def document_of(files: Iterable[tuple[FileToInspect, GgufModel]]) -> bytes:
    """The facts about all files: one line of JSON."""
    said = [{"role": file.role, "field": file.field, "facts": model.to_document()} for file, model in files]
    return json.dumps({"version": 1, "files": said}, separators=(",", ":")).encode()


def models_of_document(text: bytes, *, files: Sequence[FileToInspect]) -> tuple[GgufModel, ...]:
    """The facts about each of these files, in their order. Trusts nothing.

    Raises:
        InvalidDocumentError: it is no document of these files.
    """
    if len(text) > LONGEST_DOCUMENT_BYTES:
        raise InvalidDocumentError(f"{len(text):,} bytes, expected {LONGEST_DOCUMENT_BYTES:,} at most")
    try:
        said = json.loads(text)
        if not isinstance(said, Mapping) or said.get("version") != 1 or not isinstance(said.get("files"), list):
            raise InvalidDocumentError("not the JSON object that an inspection of this version prints")
        json.dumps(said, ensure_ascii=False).encode()  # a half of a surrogate pair could not be written anywhere
        named = [(entry.get("role"), entry.get("field")) for entry in said["files"]]
        wanted = [(file.role.value, file.field) for file in files]
        if named != wanted:
            raise InvalidDocumentError(f"it is about {named}, expected {wanted}")
        return tuple(_model(entry.get("facts")) for entry in said["files"])
    except InvalidDocumentError:
        raise
    except (GgufError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidDocumentError(f"{type(error).__name__}: {error}") from None


def _model(document: Any) -> GgufModel:
    """With what else a document can have wrong: whoever uses it relies on the types."""
    model = GgufModel.from_document(document)
    sound = (
        model.parts
        and all(
            isinstance(part.name, str)
            and isinstance(part.header_digest, str)
            and _is_size(part.size)
            and _is_size(part.header_size)
            for part in model.parts
        )
        and all(
            isinstance(tensor.name, str)
            and isinstance(tensor.type, int)
            and _is_size(tensor.size)
            and len(tensor.shape) <= _MOST_DIMENSIONS
            and all(map(_is_size, tensor.shape))
            for tensor in model.tensors
        )
        and all(map(_is_size, model.lengths.values()))
        and all(_is_value(value) for value in model.metadata.values())
    )
    if not sound:
        raise InvalidDocumentError("a size, a name or a value is of another type")
    return model


_MOST_DIMENSIONS = 4
"""Of a tensor, in ggml."""


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_value(value: object) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    return all(isinstance(item, bool | int | float | str) for item in items)


def inspected(models: Sequence[GgufModel], *, files: Sequence[FileToInspect], key: str, time: str) -> Inspection:
    """All is well, and this is what the files hold."""
    by_role: dict[Role, list[GgufModel]] = {role: [] for role in Role}
    for file, model in zip(files, models, strict=True):
        by_role[file.role].append(model)
    parts = sum(len(model.parts) for model in models)
    return Inspection(
        state=InspectionState.DONE,
        reason=Reason.INSPECTED,
        message=f"{parts} file{'s' if parts > 1 else ''} read; the headers are valid and fit together",
        key=key,
        digest=files_digest(models),
        content=hashlib.sha256(repr(models).encode()).hexdigest(),
        time=time,
        model=_first(by_role[Role.MODEL]),
        adapters=tuple(by_role[Role.ADAPTER]),
        projector=_first(by_role[Role.PROJECTOR]),
        draft=_first(by_role[Role.DRAFT]),
    )


def _first(models: Sequence[GgufModel]) -> GgufModel | None:
    return models[0] if models else None


def not_inspected(reason: Reason, message: str, *, key: str, checks_at_start: bool = False) -> Inspection:
    """Bad, pending or unknown, as the reason says."""
    if reason in BAD_REASONS:
        state = InspectionState.BAD
    elif reason is Reason.INSPECTING:
        state = InspectionState.PENDING
    else:
        state = InspectionState.UNKNOWN
    return Inspection(state=state, reason=reason, message=message, key=key, checks_at_start=checks_at_start)
