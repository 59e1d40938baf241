"""Limits of requests: how many a minute by a token bucket, how many wrong keys from an address, how large all are
together. Time is given."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Part", "SharedBytes", "TokenBucket", "WrongKeys"]

_MINUTE_SEC = 60.0
_IPV6_PREFIX = 64
"""Who has one address of IPv6 has all with this prefix."""


class TokenBucket:
    """So many a minute, which may come at once; then one whenever its part of a minute has passed."""

    __slots__ = ("_at", "_most", "_tokens")

    def __init__(self, per_minute: int, *, now: float) -> None:
        """`now`: seconds of a clock that never goes back."""
        self._most = per_minute
        self._tokens = float(per_minute)
        self._at = now

    def take(self, *, now: float) -> int:
        """Takes one, and gives 0; where there is none, gives the whole seconds until there will be."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._most / _MINUTE_SEC)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) * _MINUTE_SEC / self._most))


class WrongKeys:
    """How often each address has shown a wrong key. Of many addresses those that were quiet longest are forgotten."""

    def __init__(self, per_minute: int, *, most_addresses: int) -> None:
        self._per_minute = per_minute
        self._most_addresses = most_addresses
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def note(self, address: str | None, *, now: float) -> int:
        """One more; 0, or seconds until the next may be tried.

        Args:
            address: of the client; None where it is not known.
        """
        origin = _origin(address)
        bucket = self._buckets.pop(origin, None) or TokenBucket(self._per_minute, now=now)
        self._buckets[origin] = bucket
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)
        return bucket.take(now=now)


class SharedBytes:
    """Memory that the bodies of all requests may take together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    @contextmanager
    def part(self) -> Iterator[Part]:
        """What one request takes of it, until left."""
        part = Part(self)
        try:
            yield part
        finally:
            part.give_back()

    def take(self, size_bytes: int) -> bool:
        """Whether there was so much."""
        if self.taken + size_bytes > self._most:
            return False
        self.taken += size_bytes
        return True


class Part:
    """Of one request, or of one connection."""

    def __init__(self, of: SharedBytes) -> None:
        self._of = of
        self.taken = 0

    def take(self, size_bytes: int) -> bool:
        """More of it; False where there is no more."""
        if not self._of.take(size_bytes):
            return False
        self.taken += size_bytes
        return True

    def give_back(self) -> None:
        """All of it."""
        self._of.taken -= self.taken
        self.taken = 0


def _origin(address: str | None) -> str:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
