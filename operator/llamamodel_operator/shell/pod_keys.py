"""The key of each namespace that servers of models ask for: an entry of a mounted Secret each.

Operator and gateway show it to pods of LlamaModels with `spec.apiKeySecretRef` in that namespace, and to nobody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from llamamodel_operator.core.pod_keys import one_key
from llamamodel_operator.shell.mounted import LOOK_SEC, Mounted

__all__ = ["MountedPodKeys", "PodKey", "key_header", "no_pod_key"]

PodKey: TypeAlias = Callable[[str], str | None]
"""From a namespace to its key; None where there is none."""

_log = logging.getLogger(__name__)


def no_pod_key(_namespace: str) -> None:
    """Where nothing is mounted."""


def key_header(key: str | None) -> Mapping[str, str]:
    """The header that shows a key; none where there is none."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


class MountedPodKeys:
    """The keys as they are now."""

    def __init__(self, path: str, *, on_change: Callable[[], None] = lambda: None, look_sec: float = LOOK_SEC) -> None:
        self._by_namespace: Mapping[str, str] = {}
        self._on_change = on_change
        self.mounted = Mounted(path, on_change=self._renew, look_sec=look_sec)

    def of(self, namespace: str) -> str | None:
        """The key; None where there is none."""
        return self._by_namespace.get(namespace)

    def _renew(self, files: Mapping[str, bytes]) -> None:
        found: dict[str, str] = {}
        for namespace, content in files.items():
            try:
                found[namespace] = one_key(content)
            except ValueError as error:
                known = self.of(namespace)
                so = "what was known of it holds" if known else "its pods are not shown any"
                _log.error("key of pods in the namespace %s: %s; %s", namespace, error, so)
                if known:
                    found[namespace] = known
        self._by_namespace = found
        _log.info("keys of pods in %d namespaces", len(found))
        self._on_change()
