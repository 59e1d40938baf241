"""The certificate of the gateway, from a mounted Secret of the type kubernetes.io/tls."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from llamamodel_operator.shell.certificates import CERTIFICATE, KEY, expiry
from llamamodel_operator.shell.mounted import Mounted
from llamamodel_operator.shell.tls import ServingTls, UnusableCertificateError

__all__ = ["MountedCertificate"]

_log = logging.getLogger(__name__)


class MountedCertificate:
    """`tls` shows it; connections that are open keep the one that they began with."""

    def __init__(self, path: str, *, registry: CollectorRegistry) -> None:
        self.tls = ServingTls()
        self._ends = Gauge(
            "llamamodel_gateway_certificate_expiry_timestamp_seconds",
            "When the certificate that the gateway shows ends (0: there is none)",
            registry=registry,
        )
        self.mounted = Mounted(path, on_change=self._load)

    def problem(self) -> str | None:
        """Why nobody can connect."""
        return None if self.tls.loaded else "there is no certificate that can be served yet, see the log"

    def _load(self, files: Mapping[str, bytes]) -> None:
        if missing := {CERTIFICATE, KEY} - files.keys():
            _log.error(
                "certificate: expected tls.crt and tls.key, found no %s; what was served before still is", min(missing)
            )
            return
        try:
            self.tls.load(certificate=files[CERTIFICATE], key=files[KEY])
        except UnusableCertificateError as error:
            _log.error(
                "certificate: expected one in PEM with its key, found: %s; what was served before still is", error
            )
            return
        ends = expiry(files[CERTIFICATE])
        self._ends.set(ends.timestamp() if ends else 0)
        _log.info("serving a certificate that ends at %s", ends)
