"""What the operator's prober comes to know of a llama-server that a test has started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.observed import Pod, ServerReport
from llamamodel_operator.shell.pod_keys import PodKey, no_pod_key
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.store import Key

__all__ = ["probed"]

_WITHIN_SEC = 120
_KEY = Key("demo", "gemma")
_POD = Pod(name="gemma-0", ready=True, address="127.0.0.1", container_id="containerd://1")


def probed(
    port: int,
    *,
    until: Callable[[ServerReport], bool],
    pod_key: PodKey = no_pod_key,
    scales: tuple[float, ...] | None = None,
    expected: Expected | None = None,
    locked: bool = False,
) -> ServerReport:
    """The first report for which `until` holds, of a server on this port of the loopback, as a pod of namespace `demo`.

    What is asked for is said as to `Prober.reports`. Raises TimeoutError after two minutes.
    """

    async def passes() -> ServerReport:
        news = asyncio.Event()
        prober = Prober(again=lambda _: news.set(), pod_key=pod_key, port=port)
        try:
            async with asyncio.timeout(_WITHIN_SEC):
                while True:
                    reports = prober.reports(_KEY, [_POD], scales=scales, expected=expected, locked=locked)
                    if _POD.name in reports and until(reports[_POD.name]):
                        return reports[_POD.name]
                    await news.wait()
                    news.clear()
        finally:
            await prober.close()

    return asyncio.run(passes())
