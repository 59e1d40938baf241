"""Logs of a LlamaModel's pods: which container to read, line by line as they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.cli.live import NotReadable
from llamamodel_operator.cli.observing import pods_of
from llamamodel_operator.cli.pods import has_begun
from llamamodel_operator.core.objects.check import CHECK_CONTAINER
from llamamodel_operator.core.objects.job import INSPECT_CONTAINER, INSPECTION_LABEL
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import PODS, ApiError

__all__ = ["LogError", "LogOptions", "Source", "inspection_source", "lines_of", "server_sources", "shown_line"]

_RETRY_SEC = 1.0
_COLOUR = "\x1b\\[[0-9;]*m"
_PIECES = re.compile(f"({_COLOUR})|([^\\t -~])")


class LogError(Exception):
    """There is no such log; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """What kubectl logs has by the same names."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since_sec: int | None = None

    def query(self) -> dict[str, str]:
        """As the API server takes it."""
        flags = {"follow": self.follow, "previous": self.previous, "timestamps": self.timestamps}
        numbers = {"tailLines": self.tail, "sinceSeconds": self.since_sec}
        return {name: "true" for name, wanted in flags.items() if wanted} | {
            name: str(number) for name, number in numbers.items() if number is not None
        }


@dataclass(frozen=True, kw_only=True)
class Source:
    """A container of a pod."""

    pod: str
    container: str


async def server_sources(cluster: Cluster, model: Mapping[str, Any]) -> list[Source]:
    """The servers, the newest first. Raises LogError where there is none."""
    pods = await _pods(cluster, model)
    if not pods:
        phase = (model.get("status") or {}).get("phase") or "the operator has not seen it"
        raise LogError(f"there is no pod of {model['metadata']['name']}: {phase}")
    return [Source(pod=pod["metadata"]["name"], container=CONTAINER) for pod in reversed(pods)]


async def inspection_source(cluster: Cluster, model: Mapping[str, Any]) -> Source:
    """The latest inspection that has begun, else the latest, else the check that runs before a server.

    Raises LogError where there is none of them.
    """
    selector = f"{INSPECTION_LABEL}={child_name(model['metadata']['name'])}"
    listing = cluster.client.list(PODS, namespace=cluster.namespace, label_selector=selector)
    found = [pod async for chunk in listing for pod in chunk]
    if found:
        newest = max(found, key=lambda pod: (has_begun(pod), pod["metadata"].get("creationTimestamp") or ""))
        return Source(pod=newest["metadata"]["name"], container=INSPECT_CONTAINER)
    for pod in reversed(await _pods(cluster, model)):
        names = [container.get("name") for container in (pod.get("spec") or {}).get("initContainers") or ()]
        if CHECK_CONTAINER in names:
            return Source(pod=pod["metadata"]["name"], container=CHECK_CONTAINER)
    raise LogError(
        "the pod of the inspection is gone, and no pod of the server has a check of its files: "
        "the condition Inspected in `llamamodel status` keeps what was found"
    )


async def _pods(cluster: Cluster, model: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = await pods_of(cluster, model)
    if isinstance(found, NotReadable):
        raise LogError(f"the pods of {model['metadata']['name']} are not readable: {found.why}")
    return found


async def lines_of(
    cluster: Cluster, source: Source, options: LogOptions, *, tell: Callable[[str], None]
) -> AsyncIterator[str]:
    """Line by line. A container that has not started yet is waited for where its log is followed.

    Raises:
        LogError: there is no such log.
    """
    told = False
    while True:
        try:
            async for line in _read(cluster, source, options):
                yield line
        except ApiError as error:
            waits = error.status == 400 and "waiting to start" in error.message
            if not waits or not options.follow:
                hint = "; --inspection shows the check of its files" if waits and source.container == CONTAINER else ""
                raise LogError(f"{source.pod}: {error}{hint}") from None
            if not told:
                tell(f"{source.pod}: {error}")
                told = True
            await asyncio.sleep(_RETRY_SEC)
        else:
            return


async def _read(cluster: Cluster, source: Source, options: LogOptions) -> AsyncIterator[str]:
    params = {"container": source.container, **options.query()}
    rest = b""
    async with cluster.client.open_log(namespace=cluster.namespace, name=source.pod, params=params) as content:
        async for chunk in content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def shown_line(line: str, *, colours: bool) -> str:
    """As a terminal may have it: colours where they are wanted, every other control character as its escape."""

    def piece(match: re.Match[str]) -> str:
        if match[1]:
            return match[1] if colours else ""
        return match[2] if match[2].isprintable() else match[2].encode("unicode_escape").decode()

    return _PIECES.sub(piece, line)
