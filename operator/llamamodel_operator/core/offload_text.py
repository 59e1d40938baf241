"""What the condition Offloaded says of a server's log, written and read back: nothing else is stored of it."""

from __future__ import annotations

import re

from llamamodel_operator.core.engine.offload_log import Offload

__all__ = ["offload_of_text", "offload_text"]

_ADVICE = (
    "check that spec.image is built for this GPU, that its driver is new enough on the node, and spec.runtimeClassName"
)
_ON_CPU = re.compile(r"pod (?P<pod>\S+) runs on the CPU, its log says: (?P<line>.*?)(?:; check that spec\.image .*)?")
_ON_GPU = re.compile(r"the log of the server says: (?P<line>.*)")


def offload_text(pod: str, offload: Offload) -> str:
    """The message for the server of the pod with this name."""
    if offload.on_gpu:
        return f"the log of the server says: {offload.line}"
    return f"pod {pod} runs on the CPU, its log says: {offload.line}; {_ADVICE}"


def offload_of_text(message: str, *, pod: str) -> Offload | None:
    """What such a message says of the pod with this name; None where it says nothing of it.

    A GPU is told of where all pods have one. The CPU is told of for the pod that is named alone.
    """
    if found := _ON_GPU.fullmatch(message):
        return Offload(on_gpu=True, line=found["line"])
    found = _ON_CPU.fullmatch(message)
    return Offload(on_gpu=False, line=found["line"]) if found and found["pod"] == pod else None
