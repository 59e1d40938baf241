"""The program that inspects files in a pod: `python3 -m llamamodel_operator.inspector --files JSON`.

It prints the facts about all files as one line of JSON, and leaves its verdict in the termination message. With
`--expect DIGEST` it compares files with what is known of them instead. It imports no client of a cluster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.gguf.adapter import check_adapter
from llamamodel_operator.core.gguf.draft import check_draft
from llamamodel_operator.core.gguf.loading import check_loadable, check_model
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError
from llamamodel_operator.core.gguf.projector import check_projector
from llamamodel_operator.core.inspection import (
    LONGEST_DOCUMENT_BYTES,
    FileToInspect,
    Role,
    Verdict,
    document_of,
    files_digest,
    reason_of,
)
from llamamodel_operator.core.pod_keys import file_problem
from llamamodel_operator.shell.gguf_files import open_model

__all__ = ["main"]

_MESSAGE_FILE = "/dev/termination-log"
_PIECE_BYTES = 8 * 1024 * 1024
_STEPS = 20
"""Lines of progress for each checksum."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A file, with where it is mounted and what it must be; empty where that is not known."""

    file: FileToInspect
    inside: str
    digest: str = ""

    @property
    def place(self) -> str:
        return f"{self.inside}/{self.file.path}"


class _BadError(Exception):
    """The verdict is made."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def main(words: Sequence[str] | None = None) -> int:
    """Exits 0 where all is well, 1 where it is not, 2 where nobody could look: before a start that is no failure, 0."""
    options = _options(words)
    before_start = options.expect or options.quiet
    try:
        if options.keys_file:
            _look_at_keys(options.keys_file)  # first: no trouble with the others may hide what is wrong with it
        asked = _asked(options.files)
        models = [(one, _opened(one)) for one in asked]
        if options.expect:
            _compare(models, expected=options.expect)
        _check_together(models)
        for one, model in models:
            _verify(one, model)
        document = document_of((one.file, model) for one, model in models)
        if len(document) > LONGEST_DOCUMENT_BYTES:
            raise _BadError(Reason.INSPECTION_UNAVAILABLE, f"{len(document):,} bytes of facts are too many")
    except _BadError as bad:
        # What speaks against the keys is no reason to inspect the files again.
        expected = "" if bad.reason is Reason.API_KEYS_UNUSABLE else options.expect
        return _end(
            Verdict(reason=bad.reason, message=str(bad), expected=expected),
            to=options.message_file,
            tolerant=before_start,
        )
    except Exception as error:  # a fault of ours is no fault of the files
        message = f"{type(error).__name__}: {error}"
        verdict = Verdict(reason=Reason.INSPECTION_UNAVAILABLE, message=message, expected=options.expect)
        return _end(verdict, to=options.message_file, tolerant=before_start)
    if not options.expect and not options.quiet:
        sys.stdout.buffer.write(b"\n" + document + b"\n")
        sys.stdout.flush()
    digest = hashlib.sha256(document).hexdigest()
    return _end(Verdict(reason=Reason.INSPECTED, document=digest, expected=options.expect), to=options.message_file)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inspector", description=__doc__, allow_abbrev=False)
    parser.add_argument("--files", required=True, help="which files, as JSON")
    parser.add_argument("--expect", default="", metavar="DIGEST", help="compare sizes and headers with this digest")
    parser.add_argument("--quiet", action="store_true", help="print no facts")
    parser.add_argument("--keys-file", type=Path, help="of API keys: one that must not be served with is refused")
    parser.add_argument("--message-file", default=_MESSAGE_FILE, type=Path, help="where the verdict goes")
    return parser.parse_args(words)


def _asked(text: str) -> list[_Asked]:
    try:
        asked = [
            _Asked(
                file=FileToInspect(
                    role=Role(entry["role"]),
                    field=entry["field"],
                    claim="",
                    path=entry["path"],
                    sha256=entry.get("sha256"),
                ),
                inside=entry["inside"],
                digest=entry.get("digest", ""),
            )
            for entry in json.loads(text)
        ]
        if not asked:
            raise ValueError("no file")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = f"--files: {type(error).__name__}: {error}; expected a list of objects with role, field, inside, path"
        raise _BadError(Reason.INSPECTION_UNAVAILABLE, message) from None
    return asked


@contextmanager
def _named(one: _Asked) -> Iterator[None]:
    """Says of which field an error is."""
    try:
        yield
    except GgufError as error:
        raise _BadError(reason_of(error.reason), f"{one.file.field}: {error.message}") from None


def _opened(one: _Asked) -> GgufModel:
    with _named(one):
        return open_model(one.place, inside=one.inside)


def _check_together(models: Sequence[tuple[_Asked, GgufModel]]) -> None:
    """Each for itself, and the others with the model, which is the first."""
    base = models[0][1]
    for one, model in models:
        with _named(one):
            match one.file.role:
                case Role.MODEL:
                    check_model(model, file=one.place)
                case Role.ADAPTER:
                    check_loadable(model, file=one.place)
                    check_adapter(model, base=base, file=one.place)
                case Role.PROJECTOR:
                    check_loadable(model, file=one.place)
                    check_projector(model, base=base, file=one.place)
                case Role.DRAFT:
                    check_model(model, file=one.place)
                    check_draft(model, base=base, file=one.place)


def _compare(models: Sequence[tuple[_Asked, GgufModel]], *, expected: str) -> None:
    """Each file by itself, so that the message can name it."""
    for one, model in models:
        if one.digest and files_digest([model]) != one.digest:
            size = sum(part.size for part in model.parts)
            raise _BadError(
                Reason.MODEL_FILE_CHANGED,
                f"{one.file.field}: {one.place} is not the file that was inspected ({size:,} bytes now, or another"
                " header): it is inspected again before a pod starts with it",
            )
    if files_digest(model for _, model in models) != expected:
        raise _BadError(Reason.MODEL_FILE_CHANGED, "the files are not those that were inspected")


def _look_at_keys(file: Path) -> None:
    if problem := file_problem(file.read_bytes()):
        raise _BadError(Reason.API_KEYS_UNUSABLE, f"spec.apiKeySecretRef: {problem}")


def _verify(one: _Asked, model: GgufModel) -> None:
    """The checksum of all parts, one after the other."""
    if not one.file.sha256:
        return
    digest = hashlib.sha256()
    total, done, told = sum(part.size for part in model.parts), 0, 0
    for piece in _bytes_of(one, model):
        digest.update(piece)
        done += len(piece)
        if done * _STEPS >= (told + 1) * total:
            told = done * _STEPS // max(1, total)
            _say(f"{one.file.field}: {done:,} of {total:,} bytes")
    if (found := digest.hexdigest()) != one.file.sha256:
        raise _BadError(
            Reason.CHECKSUM_MISMATCH,
            f"{one.file.field}: {one.place} has the SHA-256 {found}, expected {one.file.sha256}: copy the file again,"
            " or correct sha256",
        )


def _bytes_of(one: _Asked, model: GgufModel) -> Iterator[bytes]:
    folder = Path(one.place).parent
    for part in model.parts:
        with (folder / part.name).open("rb", buffering=0) as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _end(verdict: Verdict, *, to: Path, tolerant: bool = False) -> int:
    """Writes the verdict, and gives the exit status. Where it is `tolerant`, not to be able to look is no failure."""
    if not verdict.good:
        _say(f"{verdict.reason}: {verdict.message}")
    try:
        to.write_text(verdict.to_text(), encoding="utf-8")
    except OSError as error:
        _say(f"the verdict cannot be written: {error}")
    if verdict.good:
        return 0
    if verdict.reason is not Reason.INSPECTION_UNAVAILABLE:
        return 1
    return 0 if tolerant else 2


def _say(text: str) -> None:
    print(re.sub(r"[^ -~]", "?", text), file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
