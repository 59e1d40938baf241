"""Whether a live object still is what was applied, foreign additions aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamamodel_operator.api.quantity import same_quantity

__all__ = ["differences", "with_foreign_items"]

_MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that server-side apply merges item by item (`x-kubernetes-list-map-keys`); foreign items may stand in
them. Every other list is ours as a whole."""

_ATOMIC_MAPS = frozenset({"nodeSelector", "selector"})
"""Maps that are ours as a whole: one more entry changes what they select."""

_QUANTITY_MAPS = frozenset({"limits", "requests"})
_MEMBERS_OF_UNIONS = frozenset({"emptyDir"})
"""Maps that say something by being there, even empty."""

_QUANTITY_FIELDS = frozenset({"divisor", "sizeLimit"})


def differences(desired: object, live: object, *, path: str = "") -> Iterator[str]:
    """Each field where the live object is not as desired, as a sentence.

    What the API server adds or spells differently is no difference: defaults, foreign fields, quantities
    ("1000m" and "1"), and empty values that it leaves out.
    """
    if isinstance(desired, Mapping):
        yield from _map_differences(desired, live, path)
    elif isinstance(desired, list | tuple):
        yield from _list_differences(desired, live, path)
    elif not _same_scalar(desired, live, path):
        # The sentences go to the log, and what is in a variable, an argument or a text may be a secret.
        secret = any(part in path for part in (".env[", ".args[", ".command[")) or path.startswith("data.")
        yield f"{path} is another one" if secret else f"{path} is {live!r}, not {desired!r}"


def with_foreign_items(desired: Any, live: object, *, field: str = "") -> Any:
    """What is desired, and in lists that are merged by key the items that others added beside ours.

    An item of theirs that has the name of one of ours is left out: the two cannot stand side by side.
    """
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        return {key: with_foreign_items(value, live.get(key), field=key) for key, value in desired.items()}
    if field not in _MERGE_KEYS or not isinstance(live, list):
        return desired

    def identity(item: Mapping[str, Any]) -> object:
        return item.get("name") or tuple(item.get(key) for key in _MERGE_KEYS[field])

    theirs = {identity(item): item for item in live}
    ours = [with_foreign_items(item, theirs.pop(identity(item), None)) for item in desired]
    return [*ours, *theirs.values()]


def _same_scalar(desired: object, live: object, path: str) -> bool:
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    if not desired and live is None:
        return True
    return _holds_quantity(path) and same_quantity(desired, live)


def _map_differences(desired: Mapping[str, Any], live: object, path: str) -> Iterator[str]:
    name = path.rsplit(".", 1)[-1]
    if live is None and not desired and name not in _MEMBERS_OF_UNIONS:
        return
    if not isinstance(live, Mapping):
        yield f"{path} is {live!r}, not a map"
        return
    if name in _ATOMIC_MAPS:
        yield from (f"{path}.{key} is there" for key in sorted(live.keys() - desired.keys()))
    for key, value in desired.items():
        yield from differences(value, live.get(key), path=f"{path}.{key}" if path else key)


def _list_differences(desired: Sequence[Any], live: object, path: str) -> Iterator[str]:
    if live is None and not desired:
        return
    if not isinstance(live, list):
        yield f"{path} is {live!r}, not a list"
        return
    keys = _MERGE_KEYS.get(path.rsplit(".", 1)[-1])
    if keys is None and len(desired) != len(live):
        yield f"{path} has {len(live)} items, not {len(desired)}"
        return
    if keys is None:
        found = list(live)
    else:
        by_key = {tuple(item.get(key) for key in keys): item for item in live}
        found = [by_key.get(tuple(item.get(key) for key in keys)) for item in desired]
    for index, (wanted, item) in enumerate(zip(desired, found, strict=True)):
        if item is None and wanted is not None:
            yield f"{path}[{index}] is missing"
        else:
            yield from differences(wanted, item, path=f"{path}[{index}]")


def _holds_quantity(path: str) -> bool:
    *_, parent, field = ["", "", *path.split(".")]
    return parent in _QUANTITY_MAPS or field in _QUANTITY_FIELDS or ".limits." in path or ".requests." in path
