"""Every setting that a field of the spec makes: which flag says it, in each spelling that builds have had.

One row per setting, in the order of the command line. A row gives its spellings in order of preference; the first
that the build takes is used. What no spelling says in a build is left out, and is a finding where the user asked
for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TypeAlias

from llamamodel_operator.api.engine import (
    DEFAULT_DEFRAG_THRESHOLD,
    MOST_THREADS,
    EngineSpec,
    FlashAttention,
)
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.quantity import parse_quantity
from llamamodel_operator.api.sources import PvcFile
from llamamodel_operator.api.spec import LlamaModelSpec, LogColors, Task
from llamamodel_operator.core.pod_keys import KEYS_FILE

__all__ = [
    "JINJA_PRESET",
    "LORA_SCALE_VARIABLE",
    "PORT",
    "SETTINGS",
    "Inputs",
    "Setting",
    "Spelling",
    "TextPaths",
    "escape_references",
    "plain_number",
    "prompt_cache_mib",
]

PORT = 8080
"""TCP port of llama-server, in the container and in the Service."""

LORA_SCALE_VARIABLE = "LLAMAMODEL_LORA_SCALE_{index}"
"""Environment variable that holds the scale of an adapter, by its place in the list."""

JINJA_PRESET = "chatml"
"""The built-in chat template that is one in Jinja too. With Jinja on, which is the default of newer builds, the name of
any other is taken for a template itself (tried on b11669)."""

_MIB = 1 << 20
_SMALLEST = 1e-30
"""Smaller ones are none to a 32-bit float, and llama-server ends when it reads them."""
_LARGEST_PROMPT_CACHE_MIB = 8192
_PROMPT_CACHE_WITHOUT_LIMIT_MIB = 1024

Words: TypeAlias = tuple[str, ...]
"""A flag and its values."""

Spelling: TypeAlias = tuple[Words, ...]
"""One way to say a setting: one flag, or several together. None at all: nothing needs to be said."""


@dataclass(frozen=True, kw_only=True)
class TextPaths:
    """Where texts lie in the container; None where there is none.

    Attributes:
        chat_template: file of a Jinja template.
        preset: name of a built-in chat template.
        grammar: file of a GBNF grammar.
        json_schema: file of a JSON schema.
        json_schema_text: the schema itself, for builds that take no file.
    """

    chat_template: str | None = None
    preset: str | None = None
    grammar: str | None = None
    json_schema: str | None = None
    json_schema_text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What settings are made from.

    Attributes:
        model: the LlamaModel.
        path: where a file on a volume lies in the container.
        texts: where texts lie.
        pinned: nothing that decides about memory is left to llama-server.
    """

    model: LlamaModel
    path: Callable[[PvcFile], str]
    texts: TextPaths
    pinned: bool = False

    @property
    def spec(self) -> LlamaModelSpec:
        return self.model.spec

    @property
    def engine(self) -> EngineSpec:
        return self.model.spec.engine


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table.

    Attributes:
        field: path of the field under spec.
        spellings: from the inputs to the ways to say it, best first; none where nothing is to be said.
        also: other fields that have a say in it.
        escaped: its words are as the kubelet wants them; they refer to environment variables.
    """

    field: str
    spellings: Callable[[Inputs], Iterable[Spelling]]
    also: tuple[str, ...] = ()
    escaped: bool = False


def prompt_cache_mib(spec: LlamaModelSpec) -> int:
    """Host memory for prompts that may come again, in MiB.

    llama-server's own default of 8 GiB would have a pod with a smaller limit killed later, under load. So it is an
    eighth of the limit unless the user says otherwise.
    """
    if spec.engine.prompt_cache_size is not None:
        return int(parse_quantity(spec.engine.prompt_cache_size) / _MIB)
    limits = (spec.resources.limits if spec.resources else None) or {}
    if "memory" not in limits:
        return _PROMPT_CACHE_WITHOUT_LIMIT_MIB
    return min(int(parse_quantity(limits["memory"]) / 8 / _MIB), _LARGEST_PROMPT_CACHE_MIB)


def escape_references(value: str) -> str:
    """The value such that the kubelet passes it on as it is: it replaces `$(NAME)`, and reads `$$` as `$`."""
    return value.replace("$", "$$")


def _value(field: str, value: Callable[[Inputs], object], *flags: str) -> Setting:
    """A flag with a value, under the names that it has had."""

    def spellings(inputs: Inputs) -> Iterator[Spelling]:
        found = value(inputs)
        if found is not None:
            for flag in flags:
                yield ((flag, _text(found)),)

    return Setting(field=field, spellings=spellings)


def _switch(field: str, value: Callable[[Inputs], bool | None], *, on: str, off: str | None, default: bool) -> Setting:
    """A flag without a value. Where one state has no flag in a build, it is the one that holds anyway."""

    def spellings(inputs: Inputs) -> Iterator[Spelling]:
        wanted = value(inputs)
        if wanted is None:
            return
        flag = on if wanted else off
        if flag is not None:
            yield ((flag,),)
        if wanted is default:
            yield ()

    return Setting(field=field, spellings=spellings)


def plain_number(value: float) -> str:
    """A number as llama-server reads it: all its digits, no exponent."""
    if abs(value) < _SMALLEST:
        return "0"
    return format(Decimal(repr(value)).normalize(), "f")


def _text(value: object) -> str:
    return plain_number(value) if isinstance(value, float) else str(value)


def _context_size(inputs: Inputs) -> int | None:
    """Left to llama-server where it is automatic and nobody could settle it."""
    wanted = inputs.engine.context_size
    return None if wanted == "auto" else wanted


def _fit(inputs: Inputs) -> Iterator[Spelling]:
    """Newer builds change by themselves what does not fit (common/fit.cpp); older ones know no such thing."""
    if inputs.pinned:
        yield (("--fit", "off"),)
        yield ()


def _gpu_layers(inputs: Inputs) -> Iterator[Spelling]:
    wanted = inputs.engine.gpu_layers
    if wanted is None:
        wanted = "auto" if inputs.spec.gpu else 0
    yield from _layers("--n-gpu-layers", wanted)


def _draft_gpu_layers(inputs: Inputs) -> Iterator[Spelling]:
    if inputs.spec.speculative is None:
        return
    wanted = inputs.spec.speculative.gpu_layers
    if wanted is None:
        wanted = "auto" if inputs.spec.gpu else 0
    for flag in ("--spec-draft-ngl", "--gpu-layers-draft"):
        yield from _layers(flag, wanted)


_EVERY_LAYER = "9999"
"""More layers than any model has: how builds that know no `all` are told."""


def _layers(flag: str, wanted: str | int) -> Iterator[Spelling]:
    yield ((flag, str(wanted)),)
    if isinstance(wanted, str):
        yield ((flag, _EVERY_LAYER),)


def _threads(inputs: Inputs) -> int | None:
    if inputs.engine.threads is not None:
        return inputs.engine.threads
    limits = (inputs.spec.resources.limits if inputs.spec.resources else None) or {}
    if "cpu" not in limits:
        return None
    cores = parse_quantity(limits["cpu"]).to_integral_value(rounding=ROUND_CEILING)
    return min(max(int(cores), 1), MOST_THREADS)


def _flash_attention(inputs: Inputs) -> Iterator[Spelling]:
    match inputs.engine.flash_attention:
        case FlashAttention.AUTO:
            yield (("--flash-attn", "auto"),)
            yield ()
        case FlashAttention.ENABLED:
            yield (("--flash-attn", "on"),)
            yield (("--flash-attn",),)
        case FlashAttention.DISABLED:
            yield (("--flash-attn", "off"),)
            yield ()


def _memory(inputs: Inputs) -> Iterator[Spelling]:
    """Mapping and locking are one flag in newer builds (--load-mode) and two in older ones."""
    mapped, locked = inputs.engine.memory_map, bool(inputs.engine.memory_lock)
    if mapped is None and not locked:
        return
    modes = {(False, False): "none", (True, False): "mmap", (False, True): "mlock", (True, True): "mmap+mlock"}
    yield (("--load-mode", modes[mapped is not False, locked]),)
    lock: Spelling = (("--mlock",),) if locked else ()
    yield (*((("--no-mmap",),) if mapped is False else ()), *lock)


def _cpu_moe(inputs: Inputs) -> Iterator[Spelling]:
    wanted = inputs.engine.cpu_moe_layers
    if wanted == "all":
        yield (("--cpu-moe",),)
        yield (("--override-tensor", r"\.ffn_(up|down|gate)_exps=CPU"),)
    elif wanted:
        yield (("--n-cpu-moe", str(wanted)),)


def _prompt_cache(inputs: Inputs) -> Iterator[Spelling]:
    yield (("--cache-ram", str(prompt_cache_mib(inputs.spec))),)


def _task(inputs: Inputs) -> Iterator[Spelling]:
    match inputs.spec.settled_task:
        case Task.EMBED:
            yield (("--embeddings",),)
        case Task.RERANK:
            yield (("--reranking",),)


def _log_colors(inputs: Inputs) -> Iterator[Spelling]:
    match inputs.spec.logging.colors:
        case LogColors.AUTO:
            yield (("--log-colors", "auto"),)
            yield ()
        case LogColors.ENABLED:
            yield (("--log-colors", "on"),)
            yield (("--log-colors",),)
        case LogColors.DISABLED:
            yield (("--log-colors", "off"),)
            yield ()


def _timestamps(inputs: Inputs) -> Iterator[Spelling]:
    if inputs.spec.logging.timestamps is False:
        yield (("--no-log-timestamps",),)
        yield ()
    else:
        yield (("--log-prefix",), ("--log-timestamps",))
        yield (("--log-timestamps",),)


def _speculation(inputs: Inputs) -> Iterator[Spelling]:
    if inputs.spec.speculative is None:
        return
    path = inputs.path(inputs.spec.speculative.draft_model.pvc)
    yield (("--spec-type", "draft-simple"), ("--spec-draft-model", path))
    yield (("--spec-draft-model", path),)
    yield (("--model-draft", path),)


def _adapters(inputs: Inputs) -> Iterator[Spelling]:
    """Scales come from the environment: a restarted container then has the present ones, in the same template."""
    adapters = inputs.spec.lora_adapters
    if not adapters:
        return
    paths = [escape_references(inputs.path(adapter.pvc)) for adapter in adapters]
    scales = [f"$({LORA_SCALE_VARIABLE.format(index=index)})" for index in range(len(paths))]
    yield (("--lora-scaled", ",".join(f"{path}:{scale}" for path, scale in zip(paths, scales, strict=True))),)
    yield tuple(("--lora-scaled", path, scale) for path, scale in zip(paths, scales, strict=True))


def _projector(inputs: Inputs) -> Iterator[Spelling]:
    if projector := inputs.spec.projector:
        yield (("--mmproj", inputs.path(projector.pvc)),)


def _chat_template(inputs: Inputs) -> Iterator[Spelling]:
    if file := inputs.texts.chat_template:
        yield (("--jinja",), ("--chat-template-file", file))
        yield (("--chat-template-file", file),)
    elif preset := inputs.texts.preset:
        if preset != JINJA_PRESET:
            yield (("--no-jinja",), ("--chat-template", preset))
        yield (("--chat-template", preset),)


def _grammar(inputs: Inputs) -> Iterator[Spelling]:
    if file := inputs.texts.grammar:
        yield (("--grammar-file", file),)
    elif file := inputs.texts.json_schema:
        yield (("--json-schema-file", file),)
        yield (("--json-schema", inputs.texts.json_schema_text or "{}"),)


def _request_default(name: str, *flags: str) -> Setting:
    def value(inputs: Inputs) -> object:
        return getattr(inputs.spec.request_defaults, name, None)

    return _value(f"requestDefaults.{name}", value, *flags)


def _speculative(name: str) -> Callable[[Inputs], object]:
    return lambda inputs: getattr(inputs.spec.speculative, name, None)


SETTINGS: tuple[Setting, ...] = (
    _value("model", lambda i: i.path(i.spec.model.pvc), "--model"),
    _value("servedModelName", lambda i: i.model.served_name, "--alias"),
    _value("host", lambda _: "0.0.0.0", "--host"),  # noqa: S104 (inside the pod's own network namespace)
    _value("port", lambda _: PORT, "--port"),
    _value("engine.contextSize", _context_size, "--ctx-size"),
    _value("engine.parallelSlots", lambda i: i.engine.parallel_slots, "--parallel"),
    _switch("engine.kvUnified", lambda i: i.engine.kv_unified, on="--kv-unified", off="--no-kv-unified", default=False),
    Setting(field="engine.gpuLayers", spellings=_gpu_layers),
    Setting(field="fit", spellings=_fit),
    _value("engine.batchSize", lambda i: i.engine.batch_size, "--batch-size"),
    _value("engine.microBatchSize", lambda i: i.engine.micro_batch_size, "--ubatch-size"),
    _value("engine.threads", _threads, "--threads"),
    _value("engine.batchThreads", lambda i: i.engine.batch_threads, "--threads-batch"),
    _switch(
        "engine.contBatching",
        lambda i: i.engine.cont_batching,
        on="--cont-batching",
        off="--no-cont-batching",
        default=True,
    ),
    _value(
        "engine.tensorSplit",
        lambda i: ",".join(map(_text, i.engine.tensor_split)) if i.engine.tensor_split else None,
        "--tensor-split",
    ),
    _value("engine.splitMode", lambda i: i.engine.split_mode, "--split-mode"),
    _value("engine.mainGpu", lambda i: i.engine.main_gpu, "--main-gpu"),
    Setting(field="engine.flashAttention", spellings=_flash_attention),
    _value("engine.cacheTypeK", lambda i: i.engine.cache_type_k, "--cache-type-k"),
    _value("engine.cacheTypeV", lambda i: i.engine.cache_type_v, "--cache-type-v"),
    _switch("engine.kvOffload", lambda i: i.engine.kv_offload, on="--kv-offload", off="--no-kv-offload", default=True),
    _switch("engine.swaFull", lambda i: i.engine.swa_full, on="--swa-full", off=None, default=False),
    _value(
        "engine.defragThreshold",
        lambda i: DEFAULT_DEFRAG_THRESHOLD if i.engine.defrag_threshold is None else float(i.engine.defrag_threshold),
        "--defrag-thold",
    ),
    Setting(field="engine.promptCacheSize", spellings=_prompt_cache),
    Setting(field="engine.memoryMap", also=("engine.memoryLock",), spellings=_memory),
    _value("engine.numa", lambda i: i.engine.numa, "--numa"),
    Setting(field="engine.cpuMoeLayers", spellings=_cpu_moe),
    _value(
        "engine.overrideTensors",
        lambda i: ",".join(i.engine.override_tensors) if i.engine.override_tensors else None,
        "--override-tensor",
    ),
    _value("engine.ropeScaling", lambda i: i.engine.rope_scaling, "--rope-scaling"),
    _value("engine.ropeFreqBase", lambda i: i.engine.rope_freq_base, "--rope-freq-base"),
    _value("engine.ropeFreqScale", lambda i: i.engine.rope_freq_scale, "--rope-freq-scale"),
    _value("engine.pooling", lambda i: i.engine.pooling, "--pooling"),
    _value("engine.timeoutSec", lambda i: i.engine.timeout_sec, "--timeout"),
    _value("engine.queueLimit", lambda i: i.engine.settled_http_threads, "--threads-http"),
    _switch(
        "engine.skipWarmup",
        lambda i: None if i.engine.skip_warmup is None else not i.engine.skip_warmup,
        on="--warmup",
        off="--no-warmup",
        default=True,
    ),
    _switch(
        "engine.checkTensors",
        lambda i: i.engine.check_tensors is not False,
        on="--check-tensors",
        off=None,
        default=False,
    ),
    _value("apiKeySecretRef", lambda i: KEYS_FILE if i.spec.api_key_secret_ref else None, "--api-key-file"),
    Setting(field="task", spellings=_task),
    Setting(field="speculative.draftModel", spellings=_speculation),
    _value("speculative.maxTokens", _speculative("max_tokens"), "--spec-draft-n-max", "--draft-max"),
    _value("speculative.minTokens", _speculative("min_tokens"), "--spec-draft-n-min", "--draft-min"),
    _value("speculative.minProbability", _speculative("min_probability"), "--spec-draft-p-min", "--draft-p-min"),
    Setting(field="speculative.gpuLayers", spellings=_draft_gpu_layers),
    _value("speculative.cacheTypeK", _speculative("cache_type_k"), "--spec-draft-type-k", "--cache-type-k-draft"),
    _value("speculative.cacheTypeV", _speculative("cache_type_v"), "--spec-draft-type-v", "--cache-type-v-draft"),
    Setting(field="loraAdapters", spellings=_adapters, escaped=True),
    Setting(field="projector", spellings=_projector),
    _switch(
        "projector.offload",
        lambda i: i.spec.projector.offload if i.spec.projector else None,
        on="--mmproj-offload",
        off="--no-mmproj-offload",
        default=True,
    ),
    Setting(field="chatTemplate", also=("systemPrompt",), spellings=_chat_template),
    Setting(field="grammar", spellings=_grammar),
    _request_default("temperature", "--temp"),
    _request_default("top_p", "--top-p"),
    _request_default("top_k", "--top-k"),
    _request_default("min_p", "--min-p"),
    _request_default("max_tokens", "--predict"),
    _request_default("seed", "--seed"),
    _request_default("presence_penalty", "--presence-penalty"),
    _request_default("frequency_penalty", "--frequency-penalty"),
    _request_default("repeat_penalty", "--repeat-penalty"),
    _switch(
        "endpoints.metrics", lambda i: i.spec.endpoints.metrics is not False, on="--metrics", off=None, default=False
    ),
    _switch(
        "endpoints.slots", lambda i: i.spec.endpoints.slots is not False, on="--slots", off="--no-slots", default=True
    ),
    _switch("logging.verbose", lambda i: i.spec.logging.verbose, on="--log-verbose", off=None, default=False),
    Setting(field="logging.timestamps", spellings=_timestamps),
    Setting(field="logging.colors", spellings=_log_colors),
)
