"""What pods have to do besides this gateway's requests: other replicas' and direct ones, as they say at /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from llamamodel_operator.core.gateway.picking import others_load
from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.shell.pod_keys import PodKey, key_header, no_pod_key

__all__ = ["LoadReader"]

_TIMEOUT_SEC = 0.5
"""A pod that takes longer is not waited for: its load is counted by the requests of this gateway alone."""
_LONGEST_BYTES = 1 << 16
_POLLS_PER_SEC = 50.0
"""Of all pods together: with more, each is asked less often."""
_ROUNDS_KNOWN = 3
"""After so many rounds without an answer nothing is known of a pod any more."""


class LoadReader:
    """Asks while there are requests: a model with two pods or more, once in `every_sec`. Lives in one event loop."""

    def __init__(self, *, in_flight: Mapping[str, int], every_sec: float, pod_key: PodKey = no_pod_key) -> None:
        """Args:
        in_flight: requests of this gateway that each pod works on, as they are at any time.
        every_sec: between two rounds; 0: nobody is asked.
        pod_key: what is shown to the pods of a namespace whose models want a key.
        """
        self._in_flight = in_flight
        self._every_sec = every_sec
        self._pod_key = pod_key
        self._session: aiohttp.ClientSession | None = None
        self._rounds = set[asyncio.Task[None]]()
        self._due: dict[str, float] = {}
        self._free = 0.0
        self._others: dict[str, tuple[float, int]] = {}

    def load(self, model: ServedModel, addresses: Sequence[str]) -> Mapping[str, int]:
        """Requests that each of these pods has to do; those of this gateway where nothing else is known."""
        if len(addresses) < 2 or not self._every_sec or not model.metrics:
            return self._in_flight
        now = asyncio.get_running_loop().time()
        if now >= max(self._due.get(model.full_name, 0.0), self._free):
            self._due[model.full_name] = now + self._every_sec
            self._free = now + len(addresses) / _POLLS_PER_SEC
            key = self._pod_key(model.namespace) if model.locked else None
            task = asyncio.create_task(self._round(tuple(addresses), key_header(key)), name="loads")
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)
        oldest = now - _ROUNDS_KNOWN * self._every_sec
        known = {address: self._others.get(address, (oldest, 0)) for address in addresses}
        return {
            address: self._in_flight.get(address, 0) + (others if time > oldest else 0)
            for address, (time, others) in known.items()
        }

    async def end(self) -> None:
        """Asks nobody any more."""
        for task in tuple(self._rounds):
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _round(self, addresses: Sequence[str], headers: Mapping[str, str]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SEC), cookie_jar=aiohttp.DummyCookieJar()
            )
        session = self._session
        said = await asyncio.gather(*(self._ask(session, address, headers) for address in addresses))
        now = asyncio.get_running_loop().time()
        oldest = now - _ROUNDS_KNOWN * self._every_sec
        self._due = {name: due for name, due in self._due.items() if due > oldest}
        kept = {address: known for address, known in self._others.items() if known[0] > oldest}
        for address, others in zip(addresses, said, strict=True):
            if others is None:
                kept.pop(address, None)
            else:
                kept[address] = (now, others)
        self._others = kept

    async def _ask(self, session: aiohttp.ClientSession, address: str, headers: Mapping[str, str]) -> int | None:
        url = f"http://{address}/metrics"
        try:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                text = await _beginning(response.content) if response.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return others_load(text, own=self._in_flight.get(address, 0))


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """All of an answer, and of one that is too long as much as counts."""
    try:
        return await content.readexactly(_LONGEST_BYTES)
    except asyncio.IncompleteReadError as error:
        return error.partial
