"""The server's side of TLS: a certificate that can be exchanged while it serves, without a file on any disk."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ServingTls", "UnusableCertificateError"]


class UnusableCertificateError(Exception):
    """A certificate and a key that cannot be served; what was loaded before still is."""


class ServingTls:
    """`context` is for the server. Connections that are open keep the certificate that they began with."""

    def __init__(self) -> None:
        self.context = _context()
        self._loaded: tuple[bytes, bytes] | None = None

    @property
    def loaded(self) -> bool:
        """Whether there is a certificate; without one every handshake fails."""
        return self._loaded is not None

    def load(self, *, certificate: bytes, key: bytes) -> bool:
        """Shows these (PEM) from the next connection on; whether they are others than before.

        Raises:
            UnusableCertificateError: they are garbage, or do not belong together.
        """
        if (certificate, key) == self._loaded:
            return False
        # First into a context that nobody uses: one that fails half-way leaves the certificate without its key.
        for context in (_context(), self.context):
            with _unlinked_file(certificate + b"\n" + key) as path:
                try:
                    context.load_cert_chain(path, password=_no_password)
                except (ssl.SSLError, OSError, ValueError) as error:
                    raise UnusableCertificateError(str(error)) from None
        self._loaded = (certificate, key)
        return True


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Else OpenSSL asks on the terminal for the password of an encrypted key, and waits."""
    return ""


@contextmanager
def _unlinked_file(content: bytes) -> Iterator[str]:
    """Python loads certificates from files only; the pod's file system is read-only, and a key has no place there."""
    number = os.memfd_create("certificate")
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
