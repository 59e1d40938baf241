"""How many tokens of prompts two real servers compute for the turns of conversations, by the way these are spread.

Beside the gateway, which keeps a conversation at one server, each request goes to the next server in turn.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from serverbench.server import Server, fetched_model, fetched_server, rendered, started

from llamamodel_operator.core.gateway.routes import ServedModel
from support.gateway import GivenDirectory, running_gateway

__all__ = ["Prompts", "Ways", "conversations", "two_servers"]

_ENGINE = {"contextSize": 8192, "parallelSlots": 4, "threads": 1}
_CONVERSATIONS, _AT_ONCE, _TURNS = 6, 3, 5
"""Not two at once: in step, each would find the same server again when they take turns."""
_SYSTEM_WORDS, _USER_WORDS, _ANSWER_TOKENS = 60, 20, 4
_WORDS = (
    "llama",
    "wool",
    "mountain",
    "river",
    "winter",
    "village",
    "bread",
    "music",
    "road",
    "garden",
    "stone",
    "window",
)


@dataclass
class Prompts:
    """Tokens of all prompts: `computed` by a server, or found in its cache."""

    computed: int = 0
    cached: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def share(self) -> float:
        """Of all tokens, those that were computed."""
        return self.computed / (self.computed + self.cached)

    def add(self, timings: dict[str, Any]) -> None:
        with self._lock:
            self.computed += timings["prompt_n"]
            self.cached += timings["cache_n"]


Way = Callable[[], Server]
"""Where the next request goes."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    gateway: Way
    round_robin: Way


@contextmanager
def two_servers() -> Iterator[Ways]:
    """With an empty cache."""
    model = fetched_model()
    binary, arguments = fetched_server(), rendered(model, engine=_ENGINE)
    with ExitStack() as stack:
        servers = [stack.enter_context(started(binary, arguments)) for _ in range(2)]
        directory = GivenDirectory(
            [ServedModel(namespace="bench", name="m", served_name="m", phase="Ready")],
            {"bench/m": [f"127.0.0.1:{server.port}" for server in servers]},
        )
        url = stack.enter_context(running_gateway(directory))
        gateway = Server(pid=0, port=int(url.rpartition(":")[2]), start_sec=0)
        turns = itertools.cycle(servers)
        yield Ways(gateway=lambda: gateway, round_robin=lambda: next(turns))


def conversations(way: Way, *, seed: int) -> Prompts:
    """What so many conversations make the servers compute, some of them at once; the same ones for the same seed."""
    prompts = Prompts()

    def talk(number: int) -> None:
        words = random.Random(seed * _CONVERSATIONS + number)  # noqa: S311 (made-up conversations)
        messages = [{"role": "system", "content": _said(words, _SYSTEM_WORDS)}]
        for _ in range(_TURNS):
            messages.append({"role": "user", "content": _said(words, _USER_WORDS)})
            answer = way().ask(
                "/v1/chat/completions", model="m", messages=messages, max_tokens=_ANSWER_TOKENS, seed=1, temperature=0
            )
            prompts.add(answer["timings"])
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(talk, range(_CONVERSATIONS)))
    return prompts


def _said(words: random.Random, number: int) -> str:
    return " ".join(words.choice(_WORDS) for _ in range(number))
