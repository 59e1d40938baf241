"""Opens GGUF models at an address: fetches the bytes of their headers, and no more, by HTTP ranges."""

from __future__ import annotations

import re
import time
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from llamamodel_operator import __version__
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.parts import read_model
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
from llamamodel_operator.core.gguf.window import AHEAD_BYTES, LATER_AHEAD_BYTES, Read

__all__ = ["open_url"]

_SILENCE_TIMEOUT_SEC = 15.0
"""For one answer to begin, or to go on."""

_FILE_TIMEOUT_SEC = 120.0
"""For all of a file's header."""

_PIECE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})/(?P<size>[0-9]{1,19})")
_EMPTY_RANGE = re.compile(r"bytes \*/0")
_NOT_FOUND, _NOT_SATISFIABLE, _PARTIAL = (404, 410), 416, 206


def open_url(url: str) -> GgufModel:
    """The model whose first file is at the address; its other parts are looked for beside it, with the same query.

    Raises:
        GgufError: the server does not answer, has no such file or gives no ranges; or it is no sound GGUF file.
    """
    place = _shown(url)
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 (it is checked when it is read)
    except ValueError as error:
        raise GgufError(GgufProblem.UNREADABLE, file=place, message=f"this is no address: {error}") from None
    if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc:
        raise GgufError(
            GgufProblem.UNREADABLE,
            file=place,
            message="expected an address such as https://example.com/model.gguf, without user and password",
        )
    folder, _, name = address.path.rpartition("/")

    def open_file(file_name: str) -> tuple[Read, int, str]:
        file_url = urlunsplit(address._replace(path=f"{folder}/{quote(file_name)}", fragment=""))
        file = _File(file_url, ahead=AHEAD_BYTES if file_name == unquote(name) else LATER_AHEAD_BYTES)
        return file.read, file.size, _shown(file_url)

    return read_model(open_file, name=unquote(name))


class _File:
    """A file at an address, after its first bytes were fetched."""

    def __init__(self, url: str, *, ahead: int) -> None:
        self._url = url
        self._place = _shown(url)
        self._opener = _opener()
        self._deadline = time.monotonic() + _FILE_TIMEOUT_SEC
        self.size = 0
        self._begin = self._fetch(0, ahead)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self._begin):
            return self._begin[offset : offset + length]
        return self._fetch(offset, length)

    def _fetch(self, offset: int, length: int) -> bytes:
        request = Request(  # noqa: S310 (http and https alone: see _opener)
            self._url,
            headers={
                "Range": f"bytes={offset}-{offset + length - 1}",
                "Accept-Encoding": "identity",
                "User-Agent": f"llamamodel/{__version__}",
            },
        )
        try:
            with cast(HTTPResponse, self._opener.open(request, timeout=_SILENCE_TIMEOUT_SEC)) as response:
                self._url = response.geturl()  # the next request need not be led there again
                return self._body(response, offset=offset, length=length)
        except HTTPError as error:
            with error:
                if error.code == _NOT_SATISFIABLE and _EMPTY_RANGE.fullmatch(error.headers.get("Content-Range", "")):
                    return b""
                raise self._status_error(error.code) from None
        except (OSError, HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            raise self._error(f"the server cannot be read from: {cause}") from error

    def _body(self, response: HTTPResponse, *, offset: int, length: int) -> bytes:
        if response.status != _PARTIAL:
            raise self._error(
                f"the server answered {response.status} instead of {_PARTIAL}: it gives files as a whole only, without "
                "ranges; fetch the file, and name it instead of the address"
            )
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found["first"]) != offset:
            raise self._error("the server's Content-Range does not say that it sends the bytes that were asked for")
        size = int(found["size"])
        if self.size not in (0, size):
            raise self._error(f"the file had {self.size:,} bytes, and now has {size:,}: it was replaced; try again")
        self.size = size
        length = min(length, size - offset)
        pieces: list[bytes] = []
        while length:
            piece = response.read1(min(length, _PIECE_BYTES))  # what has come: the deadline counts
            if not piece:
                raise self._error("the connection ended before the answer did: try again")
            if time.monotonic() > self._deadline:
                raise self._error(f"the header did not come within {_FILE_TIMEOUT_SEC:.0f} s")
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _status_error(self, status: int) -> GgufError:
        if status in _NOT_FOUND:
            return GgufError(
                GgufProblem.MODEL_FILE_NOT_FOUND,
                file=self._place,
                message=f"the server answered {status}: there is no such file",
            )
        if status in (401, 403):
            return GgufError(
                GgufProblem.PERMISSION_DENIED,
                file=self._place,
                message=f"the server answered {status}: it does not give this file to everyone; fetch it with your "
                "credentials, and name the file instead of the address",
            )
        return self._error(f"the server answered {status}, expected {_PARTIAL}")

    def _error(self, message: str) -> GgufError:
        return GgufError(GgufProblem.UNREADABLE, file=self._place, message=message)


def _opener() -> OpenerDirector:
    """For http and https alone: a redirect must not lead to a file, or elsewhere."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPRedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _shown(url: str) -> str:
    """Without query, user and password, which may be secrets."""
    scheme, _, rest = url.partition("://")
    where, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{where.rpartition('@')[2]}{slash}{path}"
