"""API keys of servers: from the environment, else from the Secret that a LlamaModel names, by the user's own rights."""

from __future__ import annotations

import binascii
import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from llamamodel_operator.api.spec import DEFAULT_API_KEY_ENTRY
from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.core.pod_keys import keys_in
from llamamodel_operator.shell.client import SECRETS, ApiError

__all__ = ["API_KEY_VARIABLE", "ServerKey", "ServerKeys", "key_of_environment"]

API_KEY_VARIABLE = "LLAMAMODEL_API_KEY"
"""Of the environment: the key of servers that want one."""


@dataclass(frozen=True, kw_only=True)
class ServerKey:
    """What a server is shown.

    Attributes:
        key: None where there is none.
        problem: why there is none, although the LlamaModel names a Secret.
    """

    key: str | None = field(default=None, repr=False)
    problem: str = ""


def key_of_environment() -> ServerKey:
    """What all servers are shown; nothing where the variable is not set."""
    return ServerKey(key=os.environ.get(API_KEY_VARIABLE) or None)


class ServerKeys:
    """Reads each Secret until it has its key."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[str, str, str], ServerKey] = {}

    async def of(self, model: Mapping[str, Any]) -> ServerKey:
        """Of the servers of a LlamaModel: the first key in its Secret."""
        given, ref = key_of_environment(), model["spec"].get("apiKeySecretRef")
        if given.key is not None or ref is None:
            return given
        where = str(model["metadata"]["namespace"]), ref["name"], ref.get("key") or DEFAULT_API_KEY_ENTRY
        if (known := self._known.get(where)) is not None:
            return known
        found = await self._read(*where)
        if found.key is not None:  # else it may be there the next time
            self._known[where] = found
        return found

    async def _read(self, namespace: str, name: str, key: str) -> ServerKey:
        what = f"Secret {name} in the namespace {namespace}"
        try:
            secret = await self._cluster.client.get(SECRETS, namespace=namespace, name=name)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            return ServerKey(problem=f"{what} cannot be read: {error or type(error).__name__}")
        if secret is None:
            return ServerKey(problem=f"{what} does not exist")
        try:
            found = keys_in(b64decode((secret.get("data") or {}).get(key) or ""))
        except binascii.Error:
            found = ()
        return ServerKey(key=found[0]) if found else ServerKey(problem=f"{what} has no key in its entry {key}")
