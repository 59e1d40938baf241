"""The plainest client that can do the writes: aiohttp, bytes in, bytes out, nothing parsed that is not needed."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import orjson
import yaml

from .errors import BenchError

__all__ = ["Api"]

_TIMEOUT = aiohttp.ClientTimeout(total=60)
_PAGE = "500"


class Api:
    """Requests to the cluster's API server as its administrator."""

    def __init__(self, *, server: str, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path, *, user_agent: str) -> AsyncIterator[Api]:
        """`user_agent` is what the audit log names the writer by."""
        cluster, user = _read(kubeconfig)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(cluster, user)),
            headers={"User-Agent": user_agent},
            timeout=_TIMEOUT,
        ) as session:
            yield cls(server=cluster["server"], session=session)

    async def post(self, path: str, body: bytes) -> bytes:
        """Creates an object. Raises BenchError."""
        return await self._send("POST", path, body=body, content_type="application/json")

    async def apply(self, path: str, body: bytes, *, manager: str) -> bytes:
        """Server-side apply. Raises BenchError."""
        return await self._send(
            "PATCH",
            f"{path}?fieldManager={manager}&force=true",
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """A merge patch. Raises BenchError."""
        return await self._send("PATCH", path, body=orjson.dumps(body), content_type="application/merge-patch+json")

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """Raises BenchError."""
        answer: dict[str, Any] = orjson.loads(await self._send("GET", path, params=params))
        return answer

    async def list(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """All objects of a collection, a page at a time. Raises BenchError."""
        token = ""
        while True:
            answer = await self.get(path, limit=_PAGE, **({"continue": token} if token else {}))
            for item in answer["items"]:
                yield item
            if not (token := answer["metadata"].get("continue", "")):
                return

    async def delete_all(self, path: str) -> None:
        """Deletes a collection. Raises BenchError."""
        await self._send("DELETE", path, params={"propagationPolicy": "Background"})

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "",
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else None
        async with self._session.request(
            method, self._server + path, data=body, headers=headers, params=params
        ) as response:
            text = await response.read()
            if response.status >= 400:
                raise BenchError(f"{method} {path}: {response.status} {text[:500].decode(errors='replace')}")
            return text


def _read(kubeconfig: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its only cluster and its only user."""
    config = yaml.safe_load(kubeconfig.read_text())
    return config["clusters"][0]["cluster"], config["users"][0]["user"]


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with TemporaryDirectory() as folder:  # the ssl module reads client certificates from files only
        pair = Path(folder, "client.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(pair)
    return context
