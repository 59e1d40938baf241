"""What running servers say of themselves at the moment: build, slots, counters; tokens per second from two looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llamamodel_operator.cli.servers import ModelServer, NotReadableError

__all__ = ["Counters", "Look", "NotReadable", "Rates", "Slot", "look_at", "rates", "read_counters"]

_PREFIX = "llamacpp:"


@dataclass(frozen=True)
class NotReadable:
    """In the place of what could not be read: why."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One of the requests that a server can work on at the same time.

    Attributes:
        tokens: in its context; None where the build does not say, or nothing is known since the start.
        context_size: most tokens that it may have.
        prompt_done, generated: tokens of the request that it works on, so far; 0 where it is idle.
    """

    number: int
    busy: bool
    tokens: int | None
    context_size: int
    prompt_done: int
    generated: int


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Of a server since its start; tokens of a request are counted when its prompt, and when all of it is done."""

    prompt_tokens: int
    generated_tokens: int
    processing: int
    deferred: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a server.

    Attributes:
        at: seconds on a steady clock.
        build: as the server says it.
    """

    server: str
    at: float
    build: str | NotReadable
    slots: tuple[Slot, ...] | NotReadable
    counters: Counters | NotReadable


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Tokens per second of all servers together, between two looks at them."""

    prompt: float
    generation: float


async def look_at(server: ModelServer, *, clock: Callable[[], float] = time.monotonic) -> Look:
    """Never raises for what the server does."""
    build, slots, counters = await asyncio.gather(_build(server), _slots(server), _counters(server))
    return Look(server=server.name, at=clock(), build=build, slots=slots, counters=counters)


def rates(before: Sequence[Look], after: Sequence[Look]) -> Rates | None:
    """None where no server can be compared: none was seen twice with its counters, or all were restarted.

    The server adds a request's tokens to its counters when it is done; those of requests under way are in the slots.
    """
    earlier = {look.server: look for look in before}
    pairs = [(earlier[look.server], look) for look in after if look.server in earlier]
    prompt, generation, known = 0.0, 0.0, False
    for old, new in pairs:
        seconds = new.at - old.at
        if isinstance(old.counters, NotReadable) or isinstance(new.counters, NotReadable) or seconds <= 0:
            continue
        if new.counters.generated_tokens < old.counters.generated_tokens:
            continue  # it was restarted
        slots: tuple[Sequence[Slot], Sequence[Slot]] = ((), ())
        if not isinstance(old.slots, NotReadable) and not isinstance(new.slots, NotReadable):
            slots = (old.slots, new.slots)
        prompt += max(0, _prompts(new.counters, slots[1]) - _prompts(old.counters, slots[0])) / seconds
        generation += max(0, _generated(new.counters, slots[1]) - _generated(old.counters, slots[0])) / seconds
        known = True
    return Rates(prompt=prompt, generation=generation) if known else None


async def read_counters(server: ModelServer) -> Counters:
    """Raises NotReadableError."""
    text = await server.text("/metrics")
    try:
        values = {
            sample.name.removeprefix(_PREFIX): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(_PREFIX)
        }
        return Counters(
            prompt_tokens=round(values["prompt_tokens_total"]),
            generated_tokens=round(values["tokens_predicted_total"]),
            processing=round(values["requests_processing"]),
            deferred=round(values["requests_deferred"]),
        )
    except (KeyError, ValueError, OverflowError):
        raise NotReadableError("the metrics are not those of llama-server") from None


async def _counters(server: ModelServer) -> Counters | NotReadable:
    try:
        return await read_counters(server)
    except NotReadableError as error:
        return NotReadable(str(error))


async def _build(server: ModelServer) -> str | NotReadable:
    try:
        answer = await server.json("/props")
    except NotReadableError as error:
        return NotReadable(str(error))
    build = answer.get("build_info") if isinstance(answer, dict) else None
    return build if isinstance(build, str) else NotReadable("the server does not say it")


async def _slots(server: ModelServer) -> tuple[Slot, ...] | NotReadable:
    try:
        answer = await server.json("/slots")
    except NotReadableError as error:
        return NotReadable(str(error))
    listed = answer if isinstance(answer, list) else []
    if not listed or not all(isinstance(slot, dict) for slot in listed):
        return NotReadable("the answer is not a list of slots")
    return tuple(_slot(slot) for slot in listed)


def _slot(raw: dict[str, Any]) -> Slot:
    busy = raw.get("is_processing") is True
    token = raw.get("next_token")
    token = token[0] if isinstance(token, list) and token else token
    generated = _number(token, "n_decoded") if busy else 0
    return Slot(
        number=_number(raw, "id"),
        busy=busy,
        tokens=_number(raw, "n_prompt_tokens") if "n_prompt_tokens" in raw else None,
        context_size=_number(raw, "n_ctx"),
        prompt_done=_number(raw, "n_prompt_tokens_processed") if busy and not generated else 0,
        generated=generated,
    )


def _number(raw: Any, key: str) -> int:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _prompts(counters: Counters, slots: Sequence[Slot]) -> int:
    return counters.prompt_tokens + sum(slot.prompt_done for slot in slots)


def _generated(counters: Counters, slots: Sequence[Slot]) -> int:
    return counters.generated_tokens + sum(slot.generated for slot in slots)
