"""Which pod takes a request: one that has seen the beginning of the conversation, unless it has more to do than others.

llama-server keeps the KV cache of each slot, and does not compute a prompt's beginning again that is in one. So the
turns of a conversation go to one pod: by rendezvous hashing, by which a pod that comes or goes moves as few
conversations as can be, with a bound on the load of each (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with
Bounded Loads, 2018).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

__all__ = ["Pick", "Why", "beginning_of", "others_load", "pick"]

_MORE = 1.25
"""How much more than the mean a pod may have to do before a conversation moves on."""
_BEGINNING = 2_048
"""Characters of each text that count: what is alike so far is alike for a slot's cache, too."""
_PROCESSING = re.compile(rb"^llamacpp:requests_processing (\d{1,6})(?:\.0*)?$", re.MULTILINE)
_DEFERRED = re.compile(rb"^llamacpp:requests_deferred (\d{1,6})(?:\.0*)?$", re.MULTILINE)


class Why(StrEnum):
    """What made it this pod."""

    AFFINITY = "affinity"
    """The conversation belongs there."""
    BOUND = "bound"
    """The conversation belongs elsewhere, where there is too much to do."""
    LEAST = "least"
    """It has least to do, and there is no beginning."""
    ONLY = "only"
    """There is no other."""


class Pick(NamedTuple):
    """A pod, `host:port`."""

    address: str
    why: Why


def beginning_of(request: Mapping[str, Any]) -> bytes | None:
    """A digest that all turns of a conversation have in common; None where a request has no beginning to speak of.

    Of messages it is all up to the first one of the user, for later ones come with the turns; of a prompt its first
    characters.
    """
    told: list[str] = []
    messages = request.get("messages")
    if isinstance(messages, list):
        for message in messages:
            if not isinstance(message, Mapping):
                return None
            told.append(_text(message.get("content")))
            if message.get("role") == "user":
                break
    else:
        told.append(_text(request.get("prompt") or request.get("input")))
    if not any(told):
        return None
    return hashlib.blake2b("\0".join(told).encode(errors="replace"), digest_size=16).digest()


def pick(addresses: Sequence[str], *, in_flight: Mapping[str, int], beginning: bytes | None, turn: int) -> Pick:
    """One of these.

    Args:
        addresses: of pods that are ready; one at least.
        in_flight: requests that each of them works on or has waiting; of others none.
        beginning: of the conversation.
        turn: counts requests; who has as little to do as others takes turns with them.
    """
    if len(addresses) == 1:
        return Pick(addresses[0], Why.ONLY)
    load = {address: in_flight.get(address, 0) for address in addresses}
    if beginning is not None:
        bound = math.ceil(_MORE * (sum(load.values()) + 1) / len(addresses))
        for place, address in enumerate(sorted(addresses, key=lambda one: _rank(beginning, one))):
            if load[address] < bound:
                return Pick(address, Why.BOUND if place else Why.AFFINITY)
    least = min(load.values())
    idle = [address for address in addresses if load[address] == least]
    return Pick(idle[turn % len(idle)], Why.LEAST)


def others_load(metrics: bytes, *, own: int) -> int | None:
    """Requests that a pod works on (busy slots) or has waiting (deferred), besides one's own, by what it says itself;
    None where it does not say. It is what others had when it was asked: one's own are counted as they are now.

    Args:
        metrics: of llama-server, in Prometheus' text form.
        own: requests that are with the pod already; those that it does not know of yet make it too few others.
    """
    busy, deferred = _PROCESSING.search(metrics), _DEFERRED.search(metrics)
    return max(int(busy[1]) + int(deferred[1]) - own, 0) if busy and deferred else None


def _text(content: Any) -> str:
    match content:
        case str():
            return content[:_BEGINNING]
        case [{"text": str(text)}, *_]:
            return text[:_BEGINNING]
        case [str(text), *_]:
            return text[:_BEGINNING]
    return ""


def _rank(beginning: bytes, address: str) -> bytes:
    return hashlib.blake2b(beginning + address.encode(), digest_size=8).digest()
