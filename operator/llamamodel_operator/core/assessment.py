"""From what is known of files and nodes to the estimate, whether it fits, and the values that are settled by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.spec import LlamaModelSpec, MemoryPolicy
from llamamodel_operator.api.status import SettledStatus
from llamamodel_operator.core.fits import Fits, Room, fits_in, least_memory, no_gpu, not_estimated, room_for
from llamamodel_operator.core.gguf.geometry import UnsupportedModelError
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.core.memory.advice import Change, changes
from llamamodel_operator.core.memory.arguments import MemoryArguments
from llamamodel_operator.core.memory.estimate import Draft, MemoryEstimate
from llamamodel_operator.core.memory.fitting import Load, fits, largest_context, settle
from llamamodel_operator.core.memory.overhead import overhead_of, vendor_of
from llamamodel_operator.core.memory.settings import MemorySettings
from llamamodel_operator.core.settling import host_need, is_mapped, memory_request, startup_timeout
from llamamodel_operator.core.sizes import mebibytes, shown_size

__all__ = ["Assessment", "assess"]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Attributes:
    estimate: of what runs, or will; None where there is none.
    fits: whether there is room.
    settled: values for what the spec leaves open; None where nothing is known of the files.
    largest_context: that would fit, all slots together; None where nobody knows what the GPUs have.
    findings: to be shown beforehand.
    """

    fits: Fits
    estimate: MemoryEstimate | None = None
    settled: SettledStatus | None = None
    largest_context: int | None = None
    findings: tuple[Finding, ...] = ()


def assess(
    spec: LlamaModelSpec,
    *,
    inspection: Inspection | None,
    nodes: Sequence[NodeGpus] | None,
    arguments: MemoryArguments,
    words: Sequence[str],
    recorded: tuple[bool, SettledStatus | None],
    choose_nodes: bool,
    overheads: Mapping[str, int],
) -> Assessment:
    """Everything about the memory of a model. Takes milliseconds the first time, and next to nothing as long as nothing
    changes.

    Args:
        spec: as the user has it.
        inspection: of the files.
        nodes: of the cluster; None where they may not be read.
        arguments: what the command line for this spec says, with nothing settled.
        words: of that command line.
        recorded: whether values were settled for this spec and its files before, and which.
        choose_nodes: whether nodes may be chosen by the memory of their GPUs.
        overheads: bytes that the driver takes on each GPU, by vendor, where the operator was told.
    """
    was_settled, before = recorded
    if inspection is None or not inspection.done or inspection.model is None:
        why = "the files have not been inspected" if inspection is None else inspection.message
        return Assessment(fits=not_estimated(why), settled=before)
    load = _load(spec, inspection, arguments, overheads)
    settled = before if was_settled else _of_files(inspection)
    try:
        return _assessed(
            spec,
            case=_Case(
                digest=inspection.content,
                settings=load.settings,
                draft=arguments.draft,
                overhead=load.overhead,
                load=load,
            ),
            room=room_for(spec, spec.gpu, nodes) if spec.gpu else None,
            arguments=arguments,
            mapped=is_mapped(words),
            settled=settled,
            was_settled=was_settled,
            choose_nodes=choose_nodes,
        )
    except UnsupportedModelError as error:
        return Assessment(fits=not_estimated(str(error)), settled=settled)
    except Exception as error:
        # A fault of ours in the arithmetic must not keep a model from starting.
        what = f"{type(error).__name__}: {error}"
        why = f"the estimate failed ({what}); please report it with what `llamamodel inspect` says"
        return Assessment(fits=not_estimated(why), settled=settled)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What an estimate depends on; two of them are the same where all but the parsed header are."""

    digest: str
    settings: MemorySettings
    draft: MemorySettings | None
    overhead: int
    load: Load = field(compare=False, repr=False)

    @property
    def full(self) -> Load:
        _ = self.load.grouped  # made ready once, for all settings
        return self.load.with_settings(self.settings)


def _assessed(
    spec: LlamaModelSpec,
    *,
    case: _Case,
    room: Room | None,
    arguments: MemoryArguments,
    mapped: bool,
    settled: SettledStatus | None,
    was_settled: bool,
    choose_nodes: bool,
) -> Assessment:
    if room is None:
        estimate = _estimate(case, 0)
        settled = settled if was_settled else _with_request(spec, settled, estimate, mapped=mapped)
        limit = (spec.resources.limits or {}).get("memory") if spec.resources else None
        verdict = no_gpu(
            need=host_need(estimate.host, mapped=mapped), limit=None if limit is None else int(parse_quantity(limit))
        )
        return _result(verdict, estimate, arguments, settled)

    gpus = room.gpu.count if arguments.devices is None else min(room.gpu.count, arguments.devices or room.gpu.count)
    chosen = choose_nodes and room.by_label
    size = room.largest if chosen or room.given is not None else room.smallest
    memory = None if size is None else (size,) * gpus
    # Builds that know no `auto` are told of more layers than there are; that is as open.
    layers = spec.engine.gpu_layers in (None, "auto") and arguments.devices != 0
    open_ = _Open(layers=layers, context=arguments.context_auto)
    accepted = _Open(
        layers=open_.layers and spec.engine.gpu_layers == "auto",
        context=open_.context and spec.engine.context_size == "auto",
    )
    blocks = spec.settled_memory_policy is MemoryPolicy.BLOCK
    most = (room.largest,) * gpus if room.largest is not None else None
    if was_settled or memory is None:
        asked = _filled(case.settings, settled, accepted)
        runs = _filled(case.settings, settled, open_)
    else:
        asked = _settled(case, gpus, memory, accepted)
        runs = _settled(case, gpus, memory, open_)
    wanted = _estimate(_with(case, asked), gpus)
    short = most is not None and not fits(wanted, most)
    if short and blocks and not was_settled:
        runs = asked  # it starts as it was asked for, or not at all
    estimate = _estimate(_with(case, runs), gpus)
    if settled is not None and memory is not None and not was_settled:
        settled = settled.model_copy(
            update={
                "context_size": estimate.context_size if open_.context else None,
                "gpu_layers": estimate.gpu_layers if open_.layers else None,
            }
        )
    if not was_settled:
        settled = _with_request(spec, settled, estimate, mapped=mapped)
        least = least_memory(room, max(gpu.total for gpu in estimate.gpus)) if chosen else None
        if settled is not None and least is not None:
            settled = settled.model_copy(update={"least_gpu_memory": mebibytes(least)})
    verdict = fits_in(
        room,
        estimate=wanted,
        changes=_changes(_with(case, asked), most) if short and most is not None else (),
        meanwhile=_meanwhile(wanted, estimate) if short else "",
        uncertain="; ".join((*wanted.uncertain, *arguments.uncounted)),
        kept=settled is not None and settled.least_gpu_memory is not None,
    )
    largest = None if most is None else _largest(_with(case, runs), most)
    return _result(verdict, estimate, arguments, settled, largest=largest)


@dataclass(frozen=True, kw_only=True)
class _Open:
    """What may be chosen so that it fits."""

    layers: bool
    context: bool


def _load(
    spec: LlamaModelSpec, inspection: Inspection, arguments: MemoryArguments, overheads: Mapping[str, int]
) -> Load:
    assert inspection.model is not None  # noqa: S101 (asked before)
    draft = inspection.draft if arguments.draft is not None else None
    return Load(
        model=inspection.model,
        settings=arguments.settings,
        draft=Draft(model=draft, settings=arguments.draft) if draft and arguments.draft else None,
        adapters=inspection.adapters,
        projector=inspection.projector,
        overhead=overhead_of(vendor_of(spec.gpu.resource_name), configured=overheads) if spec.gpu else 0,
    )


def _of_files(inspection: Inspection) -> SettledStatus:
    """What depends on the files alone."""
    return SettledStatus(file_digest=inspection.digest, startup_timeout_sec=startup_timeout(inspection.size_bytes))


def _with_request(
    spec: LlamaModelSpec, settled: SettledStatus | None, estimate: MemoryEstimate, *, mapped: bool
) -> SettledStatus | None:
    if settled is None:
        return None
    return settled.model_copy(update={"memory_request": memory_request(spec, estimate.host, mapped=mapped)})


def _filled(settings: MemorySettings, settled: SettledStatus | None, where: _Open) -> MemorySettings:
    """The settings with what was settled before."""
    if settled is None:
        return settings
    if where.layers and settled.gpu_layers is not None:
        settings = replace(settings, gpu_layers=settled.gpu_layers)
    if where.context and settled.context_size is not None:
        settings = replace(settings, context_size=settled.context_size)
    return settings


def _meanwhile(wanted: MemoryEstimate, runs: MemoryEstimate) -> str:
    """How it runs where what it was asked for was more than fits."""
    if (wanted.context_size, wanted.gpu_layers) == (runs.context_size, runs.gpu_layers):
        return ""
    parts = []
    accept = []
    if wanted.context_size != runs.context_size:
        parts.append(f"a context of {runs.context_size} tokens instead of {wanted.context_size}")
        accept.append("spec.engine.contextSize")
    if wanted.gpu_layers != runs.gpu_layers:
        parts.append(f"{runs.gpu_layers} of {wanted.gpu_layers} layers on the GPU")
        accept.append("spec.engine.gpuLayers")
    most = max(gpu.total for gpu in runs.gpus)
    how = f"{' and '.join(parts)} ({shown_size(most)})"
    return f"until then it runs with {how}; auto in {' and '.join(accept)} accepts that"


def _result(
    verdict: Fits,
    estimate: MemoryEstimate,
    arguments: MemoryArguments,
    settled: SettledStatus | None,
    *,
    largest: int | None = None,
) -> Assessment:
    reasons = (*estimate.uncertain, *arguments.uncounted)
    doubt = (
        Finding(
            severity=Severity.INFO,
            code=FindingCode.ESTIMATE_UNCERTAIN,
            field="spec.model",
            message="the memory estimate may be wrong: " + "; ".join(reasons),
        ),
    )
    return Assessment(
        fits=verdict,
        estimate=replace(estimate, uncertain=reasons),
        settled=settled,
        largest_context=largest,
        findings=(*verdict.findings, *(doubt if reasons else ())),
    )


# --- what takes time, remembered by the files' digest and the settings. Pure: only speed depends on it.

_REMEMBERED = 128


def _with(case: _Case, settings: MemorySettings) -> _Case:
    return replace(case, settings=settings)


@lru_cache(maxsize=_REMEMBERED)
def _estimate(case: _Case, gpus: int) -> MemoryEstimate:
    return case.full.estimate(gpus=gpus)


@lru_cache(maxsize=_REMEMBERED)
def _settled(case: _Case, gpus: int, memory: tuple[int, ...], where: _Open) -> MemorySettings:
    if not (where.layers or where.context):
        return case.settings
    return settle(case.full, gpus=gpus, memory=memory, layers=where.layers, context=where.context)


@lru_cache(maxsize=_REMEMBERED)
def _largest(case: _Case, memory: tuple[int, ...]) -> int:
    return largest_context(case.full, memory=memory)


@lru_cache(maxsize=_REMEMBERED)
def _changes(case: _Case, memory: tuple[int, ...]) -> tuple[Change, ...]:
    return changes(case.full, memory=memory)
