"""Values that a spec leaves to the operator: settled once for a spec and its files, recorded, and filled into the spec.

What is filled in is all that the rest of a plan sees, so that nothing else needs to know what was automatic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.spec import DEFAULT_STARTUP_TIMEOUT_SEC, LlamaModelSpec, Resources
from llamamodel_operator.api.status import SettledStatus
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import at_least
from llamamodel_operator.core.memory.estimate import DeviceMemory
from llamamodel_operator.core.sizes import mebibytes

__all__ = [
    "HOST_ALLOWANCE_BYTES",
    "host_need",
    "is_mapped",
    "longer_timeout",
    "memory_request",
    "recorded",
    "spec_with",
    "startup_timeout",
]

HOST_ALLOWANCE_BYTES = 256 << 20
"""Host memory of a llama-server besides its buffers: the program, the libraries of the GPU's vendor, HTTP threads. An
allowance, not a measurement."""
_BASE_SEC = 120
_BYTES_PER_SEC = 50_000_000
"""What slow network storage gives."""


def recorded(
    model: LlamaModel, inspection: Inspection | None, *, settled_for: str
) -> tuple[bool, SettledStatus | None]:
    """Whether values were settled for this very spec and these files, and which; they hold, whatever is known today.

    None of them where nothing was known of the files at that time. While nothing is known of the files, they are taken
    to be the same.
    """
    engine = model.status.get("engine")
    if not isinstance(engine, Mapping) or engine.get("settledFor") != settled_for:
        return False, None
    raw = engine.get("settled")
    if raw is None:
        return True, None
    try:
        settled = SettledStatus.model_validate(raw)
    except ValidationError:
        return False, None
    known = inspection is not None and inspection.done
    if known and inspection is not None and settled.file_digest != inspection.digest:
        return False, None
    return True, settled


def startup_timeout(size_bytes: int) -> int | None:
    """Seconds from container start to readiness for files of this size; None where the default is enough."""
    seconds = _BASE_SEC + -(-size_bytes // _BYTES_PER_SEC)
    return seconds if seconds > DEFAULT_STARTUP_TIMEOUT_SEC else None


def longer_timeout(tried: int, inspection: Inspection | None) -> int:
    """Seconds to try where these were too few: twice as many, and what files of this size get where nobody says
    anything."""
    unset = (startup_timeout(inspection.size_bytes) if inspection is not None else None) or DEFAULT_STARTUP_TIMEOUT_SEC
    return max(2 * tried, unset)


def is_mapped(words: Sequence[str]) -> bool:
    """Whether the weights are mapped into memory and nothing keeps them there: they are page cache then, which the
    kernel can take back."""
    modes = [mode for word, mode in zip(words, [*words[1:], ""], strict=True) if word in ("--load-mode", "-lm")]
    if modes:
        return modes[-1] in ("auto", "mmap")
    return not {"--no-mmap", "--mlock", "-dio", "--direct-io"} & set(words)


def host_need(host: DeviceMemory, *, mapped: bool) -> int:
    """Bytes of the container that cannot be taken back."""
    return host.total - (host.weights if mapped else 0) + HOST_ALLOWANCE_BYTES


def memory_request(spec: LlamaModelSpec, host: DeviceMemory, *, mapped: bool) -> str | None:
    """The memory request, where the spec has neither request nor limit."""
    given = spec.resources or Resources()
    if "memory" in (given.limits or {}) or "memory" in (given.requests or {}):
        return None
    return mebibytes(host_need(host, mapped=mapped))


def spec_with(spec: LlamaModelSpec, settled: SettledStatus | None) -> LlamaModelSpec:
    """The spec with the settled values in the places of what it leaves open."""
    if settled is None:
        return spec
    engine: dict[str, Any] = {}
    if settled.context_size is not None:
        engine["context_size"] = settled.context_size
    if settled.gpu_layers is not None:
        engine["gpu_layers"] = settled.gpu_layers
    changes: dict[str, Any] = {"engine": spec.engine.model_copy(update=engine)} if engine else {}
    if settled.startup_timeout_sec is not None and spec.startup_timeout_sec is None:
        changes["startup_timeout_sec"] = settled.startup_timeout_sec
    if settled.memory_request is not None:
        resources = spec.resources or Resources()
        requests = {**(resources.requests or {}), "memory": settled.memory_request}
        changes["resources"] = resources.model_copy(update={"requests": requests})
    if settled.least_gpu_memory is not None and spec.gpu is not None:
        least = int(parse_quantity(settled.least_gpu_memory))
        if conditions := at_least(spec.gpu.resource_name, least):
            changes["affinity"] = _with_conditions(spec.affinity or {}, conditions)
    return spec.model_copy(update=changes) if changes else spec


def _with_conditions(affinity: Mapping[str, Any], conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One term must hold, and of it everything: so each term gets the conditions."""
    node = dict(affinity.get("nodeAffinity") or {})
    required = dict(node.get("requiredDuringSchedulingIgnoredDuringExecution") or {})
    terms = required.get("nodeSelectorTerms")
    # A term without anything holds for no node; with conditions of ours it would.
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *conditions]}
        if any(term.values())
        else term
        for term in terms or ()
    ] or [{"matchExpressions": [*conditions]}]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = required
    return {**affinity, "nodeAffinity": node}
