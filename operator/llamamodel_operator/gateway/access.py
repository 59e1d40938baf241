"""Who comes in: keys from a mounted Secret, and how many requests there are of each key and in all.

Each gateway counts by itself. Lives in one event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from llamamodel_operator.core.gateway.errors import ApiError, invalid_api_key, rate_limited
from llamamodel_operator.core.gateway.keys import Key, KeyEntry, KeyRing, presented_key, read_keys, visible_to
from llamamodel_operator.core.gateway.limits import TokenBucket, WrongKeys
from llamamodel_operator.core.gateway.routes import Routes
from llamamodel_operator.gateway.messages import Request
from llamamodel_operator.shell.mounted import LOOK_SEC, Mounted

__all__ = ["Access", "MountedKeys", "Visitor"]

_MOST_ADDRESSES = 10_000
"""Whose wrong keys are counted: a megabyte or two."""
_FULL_RETRY_SEC = 1

_log = logging.getLogger(__name__)


class MountedKeys:
    """The keys as they are now."""

    def __init__(self, path: str, *, look_sec: float = LOOK_SEC) -> None:
        self.ring = KeyRing()
        self._path = path
        self._has_had_some = False
        self.mounted = Mounted(path, on_change=self._renew, look_sec=look_sec)

    def problem(self) -> str | None:
        """Why nobody gets in. Once there were keys, none is what somebody wants: it is no reason to leave a Service.
        Before, it is a mistake, which must not take the place of gateways that work."""
        return None if self._has_had_some else f"nobody gets in: no key was found in {self._path} yet"

    def _renew(self, files: Mapping[str, bytes]) -> None:
        self.ring, problems = read_keys(files, known=self.ring)
        for problem in problems:
            _log.error("key %s", problem)
        if self.ring.by_digest:
            self._has_had_some = True
            _log.info("%d keys", len(self.ring.by_digest))
        else:
            _log.warning("nobody gets in: expected an entry for each key in %s, found none", self._path)


class Visitor(NamedTuple):
    """Attributes:
    key: the name of its key; None where keys are off.
    routes: what it may use; nothing else is there for it.
    """

    key: str | None
    routes: Routes


class _Use:
    """What one key does now, and what it may see."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._bucket: tuple[int, TokenBucket] | None = None
        self._seen: tuple[Routes, KeyEntry, Routes] | None = None

    def bucket(self, per_minute: int, *, now: float) -> TokenBucket:
        if self._bucket is None or self._bucket[0] != per_minute:
            self._bucket = per_minute, TokenBucket(per_minute, now=now)
        return self._bucket[1]

    def routes(self, entry: KeyEntry, routes: Routes) -> Routes:
        if self._seen is None or self._seen[0] is not routes or self._seen[1] is not entry:
            self._seen = routes, entry, visible_to(entry, routes)
        return self._seen[2]


class _Visit:
    """Who has come in, until it leaves. A class, as a generator takes three times as long."""

    __slots__ = ("_uses", "_visitor")

    def __init__(self, visitor: Visitor | ApiError, uses: tuple[_Use, ...]) -> None:
        self._visitor = visitor
        self._uses = uses

    def __enter__(self) -> Visitor | ApiError:
        for use in self._uses:
            use.in_flight += 1
        return self._visitor

    def __exit__(self, *_: object) -> None:
        for use in self._uses:
            use.in_flight -= 1


class Access:
    """The door of one gateway."""

    def __init__(
        self,
        *,
        keys: MountedKeys | None = None,
        max_in_flight: int = 2000,
        wrong_keys_per_minute: int = 20,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        keys: None: whoever reaches the gateway comes in.
        now: seconds, never going back.
        """
        self._keys = keys
        self._max_in_flight = max_in_flight
        self._now = now
        self._all = _Use()
        self._wrong = WrongKeys(wrong_keys_per_minute, most_addresses=_MOST_ADDRESSES)
        self._ring = KeyRing()
        self._uses: dict[str, _Use] = {}
        self._anybody = _Use()

    def entered(self, request: Request, routes: Routes) -> _Visit:
        """Who it is, counted until left, or why it may not come in.

        Args:
            routes: to all that there is.
        """
        visitor, use = self._admit(request, routes)
        return _Visit(visitor, () if isinstance(visitor, ApiError) else (self._all, use))

    def _admit(self, request: Request, routes: Routes) -> tuple[Visitor | ApiError, _Use]:
        if self._all.in_flight >= self._max_in_flight:
            what = f"this gateway works on {self._max_in_flight}, which is its limit"
            return rate_limited(what, retry_after_sec=_FULL_RETRY_SEC), self._anybody
        if self._keys is None:
            return Visitor(key=None, routes=routes), self._anybody
        key = self._who(request, self._keys.ring)
        if isinstance(key, ApiError):
            return key, self._anybody
        use = self._uses.setdefault(key.name, _Use())
        refused = self._limited(key.entry, use)
        return refused or Visitor(key=key.name, routes=use.routes(key.entry, routes)), use

    def _who(self, request: Request, ring: KeyRing) -> Key | ApiError:
        presented = presented_key(request.headers)
        if presented is None:
            return invalid_api_key()
        key = ring.find(presented)
        if key is not None:
            self._forget_gone(ring)
            return key
        # A right key is never held back for the wrong ones of its address: a proxy gives one to all of its clients.
        seconds = self._wrong.note(request.remote, now=self._now())
        if seconds:
            return rate_limited("this address has sent too many wrong keys", retry_after_sec=seconds)
        return invalid_api_key()

    def _limited(self, entry: KeyEntry, use: _Use) -> ApiError | None:
        if entry.concurrency is not None and use.in_flight >= entry.concurrency:
            return rate_limited(f"this key may have {entry.concurrency} at a time", retry_after_sec=_FULL_RETRY_SEC)
        if entry.requests_per_minute is None:
            return None
        now = self._now()
        seconds = use.bucket(entry.requests_per_minute, now=now).take(now=now)
        if not seconds:
            return None
        return rate_limited(f"this key may send {entry.requests_per_minute} a minute", retry_after_sec=seconds)

    def _forget_gone(self, ring: KeyRing) -> None:
        if ring is not self._ring:
            self._ring, names = ring, ring.names
            self._uses = {name: use for name, use in self._uses.items() if name in names or use.in_flight}
