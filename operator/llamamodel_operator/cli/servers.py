"""Running llama-servers, asked from outside the cluster: through the API server's proxy, or at an address."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.cli.server_keys import API_KEY_VARIABLE, ServerKey, key_of_environment
from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.shell.client import PODS

__all__ = ["ModelServer", "NotReadableError", "NotTakenError", "server_at", "server_of_pod"]

_ANSWER_SEC = 5.0
_LARGEST_ANSWER_BYTES = 8 << 20
_NOT_TAKEN = re.compile(
    r"error trying to reach service: (EOF|http: server closed idle connection|(readfrom tcp \S+: )?write tcp )"
)
"""As the API server's proxy, which is Go's, says it: the server had not got all of the request."""


class NotReadableError(Exception):
    """A server did not give what it was asked for; the message is half a sentence that says why."""


class NotTakenError(NotReadableError):
    """A connection that was kept from an earlier request was closed by the server: it did not see the request.

    llama-server closes connections after streams, and idle ones, without saying so; the API server's proxy and clients
    learn of it when they use one again.
    """


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """One llama-server.

    Attributes:
        name: for people: the pod, or the address.
        url: of its root, without a slash at the end.
        headers: that every request has.
        key_problem: why it is shown no key although there should be one; empty where there is nothing to say.
    """

    name: str
    url: str
    session: aiohttp.ClientSession
    headers: Mapping[str, str]
    key_problem: str = ""

    async def text(self, path: str) -> str:
        """What it answers to a GET. Raises NotReadableError."""
        async with self.asked("GET", path, timeout_sec=_ANSWER_SEC) as response:
            try:
                return (await read_whole(response)).decode(errors="replace")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise NotReadableError(_unreachable(error)) from None

    async def json(self, path: str) -> Any:
        """The JSON that it answers to a GET. Raises NotReadableError."""
        return parsed(await self.text(path))

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, body: object = None, *, timeout_sec: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer, to be read. Raises NotReadableError where there is none.

        Args:
            timeout_sec: for the whole answer; None: as long as it takes.
        """
        try:
            response = await self.session.request(
                method,
                self.url + path,
                json=body,
                headers=self.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_sec, sock_connect=_ANSWER_SEC),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotReadableError(_unreachable(error)) from None
        async with response:
            if response.status != 200:
                said = _refusal(response.status, await _beginning(response), key_problem=self.key_problem)
                raise NotTakenError(said) if _NOT_TAKEN.match(said) else NotReadableError(said)
            yield response


def server_of_pod(cluster: Cluster, pod: str, *, key: ServerKey, namespace: str | None = None) -> ModelServer:
    """A server behind the API server's proxy: it takes the right to get pods/proxy, and no way into the network.

    The API server keeps the Authorization header for itself; llama-server takes the key in another.
    """
    path = PODS.path(namespace=namespace or cluster.namespace, name=f"{pod}:{PORT}", subresource="proxy")
    headers = {"X-Api-Key": key.key} if key.key else {}
    url = cluster.client.server + path
    return ModelServer(name=pod, url=url, session=cluster.session, headers=headers, key_problem=key.problem)


def server_at(url: str, session: aiohttp.ClientSession) -> ModelServer:
    """A server at an address, such as that of a port-forward."""
    key = key_of_environment().key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return ModelServer(name=url, url=url.rstrip("/"), session=session, headers=headers)


async def read_whole(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises NotReadableError where it is too large to be meant so."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _LARGEST_ANSWER_BYTES:
            raise NotReadableError(f"the answer is larger than {_LARGEST_ANSWER_BYTES >> 20} MiB")
    return bytes(content)


def parsed(text: str | bytes) -> Any:
    """The JSON in it. Raises NotReadableError."""
    try:
        return json.loads(text)
    except ValueError:
        raise NotReadableError("the answer is not JSON") from None


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.read(1 << 16)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return b""


def _refusal(status: int, body: bytes, *, key_problem: str) -> str:
    said = _sentence(body)
    if status == 401:
        why = f" ({key_problem})" if key_problem else ""
        return f"it wants an API key, in the environment variable {API_KEY_VARIABLE}{why}: {said}"
    if status == 403:
        return f"not allowed: {said}"
    return said or f"the answer has the status {status}"


def _sentence(body: bytes) -> str:
    """What an error says: llama-server's, the API server's, or plain text."""
    text = body.decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:300]
    match answer:
        case {"error": {"message": str(message)}} | {"message": str(message)}:
            return message[:300]
    return ""


def _unreachable(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_SEC:.0f} s"
    return f"cannot be reached: {error}"
