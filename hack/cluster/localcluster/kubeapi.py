"""The few requests that the cluster's own start needs, to its API server, over HTTPS."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import BrokenError
from .pki import KeyPair

__all__ = ["KubeApi"]

JsonObject = dict[str, Any]

_TIMEOUT_SEC = 5.0


class KubeApi:
    """Speaks as the administrator whose certificate it was given."""

    def __init__(self, server: str, *, ca: str, client: KeyPair) -> None:
        self._address = urlsplit(server).netloc
        self._tls = ssl.create_default_context(cafile=ca)
        self._tls.load_cert_chain(client.cert, client.key)

    @classmethod
    def as_admin(cls, server: str, *, pki: Path) -> "KubeApi":
        """Speak with the administrator's certificate from a cluster's PKI directory."""
        admin = KeyPair(cert=pki / "admin.crt", key=pki / "admin.key")
        return cls(server, ca=str(pki / "ca.crt"), client=admin)

    def ready(self) -> bool:
        """Whether the API server says that it can serve."""
        try:
            return self._send("GET", "/readyz", body=None, content="")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> JsonObject | None:
        """An object or list; None where there is none, or no answer."""
        try:
            status, text = self._send("GET", path, body=None, content="")
        except (OSError, http.client.HTTPException):
            return None
        return self._json(text) if status == 200 else None

    def create(self, path: str, document: JsonObject) -> None:
        """Create an object; one of that name that is there already is left as it is."""
        self._write("POST", path, document, content="application/json", fine=(200, 201, 409))

    def merge(self, path: str, document: JsonObject) -> None:
        """Change fields of an object."""
        self._write("PATCH", path, document, content="application/merge-patch+json", fine=(200,))

    def _write(self, method: str, path: str, document: JsonObject, *, content: str, fine: tuple[int, ...]) -> None:
        try:
            status, text = self._send(method, path, body=json.dumps(document), content=content)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(f"{method} {path}: the API server does not answer: {error}") from error
        if status not in fine:
            raise BrokenError(f"{method} {path}: {status}: {self._json(text).get('message', text)}")

    def _send(self, method: str, path: str, *, body: str | None, content: str) -> tuple[int, str]:
        connection = http.client.HTTPSConnection(self._address, context=self._tls, timeout=_TIMEOUT_SEC)
        try:
            headers = {"Content-Type": content} if content else {}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    @staticmethod
    def _json(text: str) -> JsonObject:
        try:
            document = json.loads(text)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}
