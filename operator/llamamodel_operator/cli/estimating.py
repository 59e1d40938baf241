"""`llamamodel estimate`: reads what is asked for, and has the same functions count that the operator calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from llamamodel_operator.api.amounts import parse_quantity
from llamamodel_operator.core.engine.catalogues import CatalogueMatch, Catalogues
from llamamodel_operator.core.engine.plain import is_plain
from llamamodel_operator.core.engine.policy import RISKS, ArgumentPolicy
from llamamodel_operator.core.memory.advice import Change, changes
from llamamodel_operator.core.memory.arguments import Files, MemoryArguments, settings_of
from llamamodel_operator.core.memory.estimate import DeviceMemory, Draft, MemoryEstimate
from llamamodel_operator.core.memory.fitting import (
    Load,
    fits,
    largest_context,
    settle,
    shared_by_memory,
    streams,
)
from llamamodel_operator.core.memory.overhead import overhead_of, vendor_of
from llamamodel_operator.shell.gguf_files import open_gguf

if TYPE_CHECKING:
    from llamamodel_operator.api.findings import Finding
    from llamamodel_operator.cli.checking import Checked

__all__ = ["BadRequestError", "Estimated", "Point", "Request", "estimate", "of_command_line", "of_manifest", "sweep"]

_UNCERTAIN = "EstimateUncertain"
_MOST_GPUS = 64
_LEAST_MEMORY = 64 << 20
"""Bytes of a GPU; less is a number without its unit."""
_LARGEST = 1 << 63
_MOST_SLOTS = 64
_SMALLEST_SWEPT = 1024


class BadRequestError(Exception):
    """What was asked for cannot be counted; the message says why, and what to write instead."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be estimated.

    Attributes:
        gguf: path or address of the model.
        arguments: what the command line says.
        files: the other files, as far as they can be opened from here.
        gpus: how many.
        memory: bytes of each GPU; None where it is not known.
        overhead: bytes on each GPU that llama.cpp does not see.
        settle_layers, settle_context: what is automatic, and is settled as the operator does it.
        findings: about the words or the manifest.
        uncounted: sentences on what the figures lack.
    """

    gguf: str
    arguments: MemoryArguments
    files: Files
    gpus: int
    memory: tuple[int, ...] | None
    overhead: int
    settle_layers: bool
    settle_context: bool
    findings: tuple[Finding, ...]
    uncounted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """The answer.

    Attributes:
        load: what was counted.
        estimate: the figures.
        memory: bytes of each GPU; None where it is not known.
        draft: the part of the figures that is the draft model's; None without one.
        fits: None where nobody knows how much memory there is.
        max_context_size: the largest that fits, of all slots together; None likewise.
        changes: what would make it fit.
        findings: about the words or the manifest, and why the figures may be wrong.
    """

    load: Load
    estimate: MemoryEstimate
    memory: tuple[int, ...] | None
    draft: MemoryEstimate | None
    fits: bool | None
    max_context_size: int | None
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]

    @property
    def uncertain(self) -> bool:
        """Whether there is a reason why the figures may be wrong."""
        return any(finding.code == _UNCERTAIN for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step of a sweep: a value of the setting, and what it takes."""

    value: int
    estimate: MemoryEstimate
    fits: bool | None


def of_command_line(
    words: Sequence[str],
    *,
    gguf: str | None,
    gpus: int | None,
    memory: str | None,
    vendor: str,
    overhead: str | None,
    configured: Mapping[str, int],
    build: int | None,
    catalogues: Catalogues,
) -> Request:
    """A request from a llama-server command line.

    Raises:
        BadRequestError: there is no model, or a number is none.
    """
    words = [*words]
    if words and words[0].rpartition("/")[2] == "llama-server":
        del words[0]
    if gguf is None and words and not words[0].startswith("-"):
        raise BadRequestError(f"name the model with --gguf: --gguf {words[0]}")
    match = catalogues.match(catalogues.builds[-1] if build is None else build)
    arguments = settings_of(words, catalogue=match.catalogue)
    model = gguf or arguments.files.model
    if model is None:
        raise BadRequestError("name the model: --gguf FILE or URL, or -m FILE among llama-server's own arguments")
    has = _memory(memory)
    count = gpus if gpus is not None else arguments.devices if arguments.devices is not None else len(has or (0,))
    return Request(
        gguf=model,
        arguments=arguments,
        files=arguments.files,
        gpus=_count(count),
        memory=_for_each(has, count),
        overhead=_bytes(overhead, "--overhead") if overhead else overhead_of(vendor, configured=configured),
        settle_layers=False,
        settle_context=False,
        findings=_check(words, match, catalogues),
        uncounted=arguments.uncounted,
    )


def of_manifest(
    checked: Checked,
    words: Sequence[str],
    *,
    gguf: str | None,
    gpus: int | None,
    memory: str | None,
    overhead: str | None,
    configured: Mapping[str, int],
    catalogues: Catalogues,
) -> Request:
    """A request from a LlamaModel; the words come after those that the operator would write, so they win.

    Raises:
        BadRequestError: the file of the model is not given, the LlamaModel has no plan, or a number is none.
    """
    if checked.model is None or checked.plan is None:
        raise BadRequestError("the LlamaModel has errors, so there is no command line: see llamamodel validate")
    spec, catalogue = checked.model.spec, catalogues.get(checked.plan.flags)
    if gguf is None:
        source = spec.model.pvc
        raise BadRequestError(
            f"spec.model names {source.path} on the claim {source.claim_name}, which cannot be read from here: "
            "give the same file with --gguf FILE or URL"
        )
    # the plan's command has its secrets masked, which memory does not depend on
    arguments = settings_of([*checked.plan.command[1:], *words], catalogue=catalogue, env=spec.env or ())
    files = settings_of(words, catalogue=catalogue).files
    resource = spec.gpu.resource_name if spec.gpu else ""
    has = _memory(memory or (str(spec.gpu.memory) if spec.gpu and spec.gpu.memory else None))
    count = gpus if gpus is not None else spec.gpu.count if spec.gpu else 0
    missing = (
        (arguments.files.draft and not files.draft, "spec.speculative.draftModel is not counted: add -- -md FILE"),
        (arguments.files.projector and not files.projector, "spec.projector is not counted: add -- --mmproj FILE"),
        (arguments.files.adapters and not files.adapters, "spec.loraAdapters is not counted: add -- --lora FILE,FILE"),
    )
    return Request(
        gguf=gguf,
        arguments=arguments,
        files=files,
        gpus=_count(count),
        memory=_for_each(has, count),
        overhead=_bytes(overhead, "--overhead")
        if overhead
        else overhead_of(vendor_of(resource), configured=configured),
        settle_layers=arguments.layers_auto and spec.engine.gpu_layers == "auto",
        settle_context=arguments.context_auto and spec.engine.context_size == "auto",
        findings=checked.findings,
        uncounted=(*arguments.uncounted, *(text for is_missing, text in missing if is_missing)),
    )


def estimate(request: Request) -> Estimated:
    """Opens the files and counts.

    Raises:
        GgufError: a file cannot be used.
        BadRequestError: llama.cpp would not load the model.
    """
    load = _load(request)
    memory = request.memory
    if memory is not None:
        load = load.with_settings(shared_by_memory(load.settings, memory))
    if request.settle_layers or request.settle_context:
        settled = settle(
            load, gpus=request.gpus, memory=memory, layers=request.settle_layers, context=request.settle_context
        )
        load = load.with_settings(settled)
    counted = load.estimate(gpus=request.gpus)
    known = memory is not None and request.gpus > 0
    does_fit = fits(counted, memory) if known and memory is not None else None
    return Estimated(
        load=load,
        estimate=counted,
        memory=memory,
        draft=_of_draft(load, counted),
        fits=does_fit,
        max_context_size=largest_context(load, memory=memory) if known and memory is not None else None,
        changes=changes(load, memory=memory) if does_fit is False and memory is not None else (),
        findings=(*request.findings, *map(_doubt, dict.fromkeys((*counted.uncertain, *request.uncounted)))),
    )


def sweep(found: Estimated, *, setting: Literal["context", "parallel"]) -> Iterator[Point]:
    """What other values of a setting would take.

    Slots keep the context that each of them has, unless they share one.
    """
    load, settings, now = found.load, found.load.settings, found.estimate
    for value in _values(load, setting):
        if setting == "context":
            other = replace(settings, context_size=value)
        elif settings.unified:
            other = replace(settings, slots=value)
        else:
            other = replace(settings, slots=value, context_size=value * max(now.slot_context_size, 1))
        counted = load.estimate(gpus=len(now.gpus), settings=other)
        known = found.memory is not None and now.gpus
        yield Point(value=value, estimate=counted, fits=fits(counted, found.memory or ()) if known else None)


def _values(load: Load, setting: Literal["context", "parallel"]) -> Iterator[int]:
    if setting == "parallel":
        value, last = 1, _MOST_SLOTS
    else:
        caches = streams(load.settings)
        value, last = _SMALLEST_SWEPT * caches, load.grouped.geometry.context_length * caches
    while value < last:
        yield value
        value *= 2
    yield last


def _load(request: Request) -> Load:
    """Opens all files.

    Raises:
        GgufError: one cannot be used.
    """
    files, arguments = request.files, request.arguments
    model = open_gguf(request.gguf)
    draft = None
    if files.draft and arguments.draft:
        drafter = open_gguf(files.draft)
        draft = Draft(model=drafter, settings=arguments.draft)
    return Load(
        model=model,
        settings=arguments.settings,
        draft=draft,
        adapters=tuple(open_gguf(file) for file in files.adapters),
        projector=open_gguf(files.projector) if files.projector else None,
        overhead=request.overhead if request.gpus else 0,
    )


def _of_draft(load: Load, counted: MemoryEstimate) -> MemoryEstimate | None:
    """The draft model's part: what is left without the rest."""
    if load.draft is None:
        return None
    alone = replace(load, draft=None).estimate(gpus=len(counted.gpus))
    return replace(
        counted,
        gpus=tuple(_less(both, one) for both, one in zip(counted.gpus, alone.gpus, strict=True)),
        host=_less(counted.host, alone.host),
    )


def _less(both: DeviceMemory, one: DeviceMemory) -> DeviceMemory:
    names = [field.name for field in fields(DeviceMemory)]
    return DeviceMemory(**{name: getattr(both, name) - getattr(one, name) for name in names})


# --- numbers


def _count(gpus: int) -> int:
    if not 0 <= gpus <= _MOST_GPUS:
        raise BadRequestError(f"--gpus {gpus}: expected 0 to {_MOST_GPUS}")
    return gpus


def _memory(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = tuple(_bytes(item, "--gpu-memory") for item in text.split(","))
    if small := next((item for item, size in zip(text.split(","), sizes, strict=True) if size < _LEAST_MEMORY), None):
        raise BadRequestError(f"--gpu-memory {small}: less than any GPU has; expected a unit, such as 24Gi")
    return sizes


def _bytes(text: str, option: str) -> int:
    try:
        size = parse_quantity(text.strip())
    except ValueError:
        raise BadRequestError(f"{option} {text}: expected a number and a unit, such as 24Gi or 640Mi") from None
    if not 0 <= size < _LARGEST:
        raise BadRequestError(f"{option} {text}: expected 0 to 8Ei")
    return int(size)


def _for_each(memory: tuple[int, ...] | None, gpus: int) -> tuple[int, ...] | None:
    """One figure is that of each GPU."""
    if memory is None or len(memory) == gpus:
        return memory
    if len(memory) == 1:
        return memory * max(gpus, 0)
    raise BadRequestError(f"--gpu-memory has {len(memory)} figures for {gpus} GPUs: give one for each, or one for all")


def _check(words: Sequence[str], match: CatalogueMatch, catalogues: Catalogues) -> tuple[Finding, ...]:
    """What the checks have to say; importing them takes a while, so only where there may be something."""
    if is_plain(words, match.catalogue):
        return ()
    from llamamodel_operator.core.engine.arguments import check_arguments

    report = check_arguments(
        words,
        (),
        match=match,
        catalogues=catalogues,
        managed={},
        typed={},
        policy=ArgumentPolicy(allow_unsafe=frozenset(RISKS)),
        mounts=(),
    )
    return tuple(map(_of_words, report.findings))


def _doubt(reason: str) -> Finding:
    from llamamodel_operator.api.findings import Finding, FindingCode, Severity

    return Finding(severity=Severity.WARNING, code=FindingCode.ESTIMATE_UNCERTAIN, field="estimate", message=reason)


def _of_words(finding: Finding) -> Finding:
    """A finding about a pasted command line: words are counted as they stand there, not as items of a field."""

    def named(text: str) -> str:
        text = re.sub(r"spec\.extraArgs\[(\d+)\]", lambda found: f"word {int(found[1]) + 1}", text)
        return text.replace("the next item of the list", "the next word").replace("spec.extraArgs", "the words")

    return finding.model_copy(
        update={
            "field": named(finding.field),
            "message": named(finding.message),
            "suggestion": named(finding.suggestion) if finding.suggestion else None,
        }
    )
