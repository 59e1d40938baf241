"""Opens GGUF models: files of a folder, and addresses of which only the header's bytes are fetched."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.parts import read_model
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown
from llamamodel_operator.core.gguf.window import Read

__all__ = ["open_gguf", "open_model"]

_PIECE_BYTES = 128 * 1024
"""Small enough to stay in the processor's cache."""

_MOST_LOOKED_AT, _MOST_SHOWN = 1000, 5

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_gguf(source: str) -> GgufModel:
    """The model at a path or at an address that begins with http:// or https://.

    Raises:
        GgufError: as `open_model` and `open_url`.
    """
    if source.lower().startswith(("http://", "https://")):
        from llamamodel_operator.shell.gguf_urls import open_url

        return open_url(source)
    return open_model(source)


def open_model(path: str | Path, *, inside: str | Path | None = None) -> GgufModel:
    """The model whose first file is at `path`; its other parts are looked for beside it.

    Args:
        path: of the file; links are followed.
        inside: a folder that links must not lead out of, such as where a volume is mounted.

    Raises:
        GgufError: a file is missing, may not be read, is no regular file, lies outside, or is no sound GGUF file.
    """
    folder, name = os.path.split(os.fspath(path))
    with ExitStack() as stack:

        def open_file(file_name: str) -> tuple[Read, int, str]:
            place = os.path.join(folder, file_name)  # noqa: PTH118 (text in, text out)
            stack.close()  # one file at a time is open
            descriptor = _open(place, inside=None if inside is None else os.fspath(inside))
            stack.callback(os.close, descriptor)
            return _reader(descriptor, place=place), os.fstat(descriptor).st_size, place

        return read_model(open_file, name=name)


def _open(path: str, *, inside: str | None) -> int:
    try:
        if inside is not None:
            _check_inside(path, inside=inside)
        # a named pipe without a writer would be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _error(error, path) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")
    raise GgufError(GgufProblem.NOT_A_FILE, file=path, message=f"found {kind}, expected a GGUF file: name the file")


def _check_inside(path: str, *, inside: str) -> None:
    target, folder = os.path.realpath(path), os.path.realpath(inside)
    if os.path.commonpath([target, folder]) != folder:
        raise GgufError(
            GgufProblem.OUTSIDE_FOLDER,
            file=path,
            message=f"the path leads to {shown(target)}, outside of {shown(folder)}, which a server does not see: "
            "copy the file into the volume, or use a link inside of it",
        )


def _reader(descriptor: int, *, place: str) -> Read:
    def read(offset: int, length: int) -> bytes:
        try:
            return os.pread(descriptor, min(length, _PIECE_BYTES), offset)
        except OSError as error:
            raise _error(error, place) from error

    return read


def _error(error: OSError | ValueError, path: str) -> GgufError:
    if isinstance(error, ValueError):
        return GgufError(GgufProblem.MODEL_FILE_NOT_FOUND, file=path, message="this is no path: it has a NUL character")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return GgufError(GgufProblem.MODEL_FILE_NOT_FOUND, file=path, message=_not_found(path))
    if error.errno in (errno.EACCES, errno.EPERM):
        return GgufError(
            GgufProblem.PERMISSION_DENIED,
            file=path,
            message=f"user {os.geteuid()} with group {os.getegid()} may not read it: change the file's mode or owner, "
            "or run as another user or group (spec.podSecurityContext)",
        )
    if error.errno == errno.ELOOP:
        return GgufError(GgufProblem.MODEL_FILE_NOT_FOUND, file=path, message="the link leads back to itself")
    return GgufError(GgufProblem.UNREADABLE, file=path, message=f"it cannot be read: {error.strerror or error}")


def _not_found(path: str) -> str:
    """What is there instead, as far as it helps."""
    if os.path.islink(path):  # noqa: PTH114
        return f"it is a link to {shown(os.readlink(path))}, which does not exist"  # noqa: PTH115
    folder = os.path.dirname(path) or "."  # noqa: PTH120
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, _MOST_LOOKED_AT))
    except OSError:
        return f"there is no folder {shown(folder)}"
    names = [name for name in names if name.endswith(".gguf")] or names
    if not names:
        return f"there is no such file; {shown(folder)} is empty"
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"there is no such file; beside it are {', '.join(shown(name) for name in names[:_MOST_SHOWN])}{more}"
