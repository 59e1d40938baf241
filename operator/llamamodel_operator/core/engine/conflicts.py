"""Settings that llama-server refuses together, or silently handles otherwise than one would think.

Each rule looks at the final command line, so that it holds however a setting came there: by a typed field, by
spec.extraArgs, by a variable of spec.env. The docstring of a rule says where llama.cpp has it; line numbers move, so
it is file and function, as of b11434.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.core.engine.catalogues import CatalogueMatch
from llamamodel_operator.core.engine.effective import EffectiveSettings
from llamamodel_operator.core.engine.values import FALSE_WORDS, TRUE_WORDS
from llamamodel_operator.core.engine.words import shown

__all__ = ["ModelFacts", "check_combinations"]

_UNQUANTIZED = ("f32", "f16", "bf16")
_MOST_SEQUENCES = 256
_MOST_DEVICES = 16
_CELL_PADDING = 256


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known about the model and its pod; None where it is not known.

    Attributes:
        n_ctx_train: tokens of context that the model was trained with.
        mla: whether its attention is multi-head latent.
        gpus: how many the container gets.
    """

    n_ctx_train: int | None = None
    mla: bool | None = None
    gpus: int | None = None


_Rule: TypeAlias = Callable[[EffectiveSettings, ModelFacts], Iterator[Finding]]


def check_combinations(
    words: Sequence[str],
    *,
    match: CatalogueMatch,
    fields: Mapping[str, str],
    extra_args_from: int | None = None,
    env: Sequence[Mapping[str, Any]] = (),
    facts: ModelFacts | None = None,
) -> tuple[Finding, ...]:
    """Checks a whole command line.

    Args:
        words: all arguments of the container, without the program itself.
        match: the catalogue of the build that will run.
        fields: which typed field a flag comes from, by the flag's canonical name.
        extra_args_from: index of the first word that comes from spec.extraArgs.
        env: `spec.env`; a flag on the command line wins over its variable.
        facts: what is known about the model and its pod.
    """
    settings = EffectiveSettings(words, match=match, fields=fields, extra_args_from=extra_args_from, env=env)
    return tuple(finding for rule in _RULES for finding in rule(settings, facts or ModelFacts()))


def _conflict(severity: Severity, place: str, message: str, suggestion: str) -> Finding:
    return Finding(
        severity=severity,
        code=FindingCode.CONFLICTING_SETTINGS,
        field=place,
        message=message,
        suggestion=suggestion,
    )


def _error(settings: EffectiveSettings, place: str, message: str, suggestion: str, *about: str) -> Finding:
    """What the server refuses: an error where the facts about the flags are known for this build."""
    certain = settings.match.exact or all(settings.match.agree(spelling) for spelling in about)
    return _conflict(Severity.ERROR if certain else Severity.WARNING, place, message, suggestion)


def _warning(place: str, message: str, suggestion: str) -> Finding:
    return _conflict(Severity.WARNING, place, message, suggestion)


def _flash_attention(settings: EffectiveSettings) -> bool | None:
    """Whether flash attention is on; None where the server decides.

    Builds whose flag takes no value have it off unless asked for.
    """
    flag = settings.match.find("--flash-attn")
    setting = settings.get("--flash-attn")
    if flag is not None and flag.arity == 0:
        return setting is not None and setting.on
    text = settings.text("--flash-attn")
    if text in TRUE_WORDS:
        return True
    return False if text in FALSE_WORDS else None


def _quantized_v(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """src/llama-context.cpp, llama_init_from_model: `quantized V cache requires flash_attn to be enabled`."""
    value = settings.text("--cache-type-v")
    if value and value not in _UNQUANTIZED and _flash_attention(settings) is False:
        yield _error(
            settings,
            settings.place("--cache-type-v"),
            f"a V cache of type {shown(value)} needs flash attention, which is off; llama-server will not start",
            "set spec.engine.flashAttention to enabled, or the type of the V cache to f16, bf16 or f32",
            "--flash-attn",
            "--cache-type-v",
        )


def _latent_attention(settings: EffectiveSettings, facts: ModelFacts) -> Iterator[Finding]:
    """src/llama-context.cpp, llama_init_from_model: with MLA, K and V have one type."""
    k, v = settings.text("--cache-type-k") or "f16", settings.text("--cache-type-v") or "f16"
    if facts.mla and k != v:
        place = settings.place("--cache-type-k", "--cache-type-v")
        yield _error(
            settings,
            place,
            f"this model keeps K and V in one cache (MLA), so both need one type; found {shown(k)} and {shown(v)}",
            "set spec.engine.cacheTypeK and spec.engine.cacheTypeV to the same type",
            "--cache-type-k",
        )


def _tensor_parallel(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """src/llama-context.cpp, llama_init_from_model: `SPLIT_MODE_TENSOR requires flash_attn to be enabled`."""
    if settings.text("--split-mode") == "tensor" and _flash_attention(settings) is False:
        yield _error(
            settings,
            settings.place("--split-mode"),
            "split mode tensor needs flash attention, which is off; llama-server will not start",
            "set spec.engine.flashAttention to enabled, or spec.engine.splitMode to layer",
            "--split-mode",
            "--flash-attn",
        )


def _devices(settings: EffectiveSettings, facts: ModelFacts) -> Iterator[Finding]:
    """common/arg.cpp, --tensor-split: fewer than llama_max_devices(), the rest is 0; src/llama.cpp, main_gpu."""
    split = settings.text("--tensor-split")
    if split is not None:
        count, place = split.count(",") + split.count("/") + 1, settings.place("--tensor-split")
        if count >= _MOST_DEVICES:
            yield _error(
                settings,
                place,
                f"--tensor-split takes fewer than {_MOST_DEVICES} shares; found {count}; llama-server will not start",
                "give one share for each GPU",
                "--tensor-split",
            )
        elif facts.gpus is not None and facts.gpus != count:
            fate = "the others get nothing" if count < facts.gpus else "the shares left over are ignored"
            yield _warning(
                place,
                f"--tensor-split has {count} shares for {facts.gpus} GPUs: {fate}",
                "give one share for each GPU of spec.gpu.count",
            )
    main = settings.number("--main-gpu")
    if main is not None and facts.gpus and main >= facts.gpus and settings.text("--split-mode") == "none":
        yield _error(
            settings,
            settings.place("--main-gpu"),
            f"--main-gpu counts from 0: there is no {main} of {facts.gpus}; llama-server will not start",
            f"give a number from 0 to {facts.gpus - 1}",
            "--main-gpu",
        )


def _embeddings(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """tools/server/server.cpp, llama_server (n_batch); server-context.cpp, handle_embeddings_impl, post_rerank."""
    reranking, embeddings = settings.is_on("--reranking"), settings.is_on("--embeddings")
    pooling = settings.text("--pooling")
    if reranking and pooling not in (None, "rank"):
        yield _error(
            settings,
            settings.place("--pooling"),
            f"reranking needs pooling by rank; found {shown(pooling or '')}; /v1/rerank would answer with an error",
            "remove the pooling, or set spec.task to embed",
        )
    if embeddings and pooling == "none":
        yield _warning(
            settings.place("--pooling"),
            "with pooling none there is a vector for each token, and /v1/embeddings answers with an error",
            "set spec.engine.pooling to mean, cls or last",
        )
    if pooling is not None and not embeddings and not reranking:
        yield _warning(
            settings.place("--pooling"),
            "pooling is for embeddings; a model that generates text has no use for it",
            "set spec.task to embed",
        )
    batch, micro = settings.number("--batch-size"), settings.number("--ubatch-size") or 512
    if (embeddings or reranking) and batch is not None and batch > micro:
        yield _warning(
            settings.place("--batch-size"),
            f"an input to an embedding model must fit into the micro batch: the batch of {batch} becomes {micro}",
            "set spec.engine.microBatchSize to the same number",
        )
    elif batch is not None and settings.number("--ubatch-size") is not None and batch < micro:
        yield _warning(
            settings.place("--ubatch-size"),
            f"the micro batch of {micro} is larger than the batch: llama-server makes it {batch}",
            "set spec.engine.microBatchSize to at most spec.engine.batchSize",
        )


def _context(settings: EffectiveSettings, facts: ModelFacts) -> Iterator[Finding]:
    """src/llama-context.cpp, the constructor (n_seq_max, n_ctx_seq); server-context.cpp, n_ctx_slot."""
    slots, context = settings.number("--parallel"), settings.number("--ctx-size")
    if slots is not None and slots > _MOST_SEQUENCES:
        yield _error(
            settings,
            settings.place("--parallel"),
            f"llama-server has at most {_MOST_SEQUENCES} slots; found {slots}; it will not start",
            f"set spec.engine.parallelSlots to at most {_MOST_SEQUENCES}",
            "--parallel",
        )
        return
    if context is not None and context < 0:
        yield _conflict(
            Severity.ERROR,
            settings.place("--ctx-size"),
            f"the context size is a number of tokens, or 0 for that of the model; found {context}",
            "set spec.engine.contextSize",
        )
        return
    if not context:
        return
    unified = settings.is_on("--kv-unified") or slots is None or slots < 0
    each = context if unified else context // max(slots or 1, 1)
    if each < _CELL_PADDING:
        padded = _CELL_PADDING * (1 if unified else max(slots or 1, 1))
        yield _warning(
            settings.place("--ctx-size"),
            f"current builds give each slot {_CELL_PADDING} tokens or more: a context of {context} becomes {padded}",
            f"set spec.engine.contextSize to {padded} or more",
        )
    if (
        facts.n_ctx_train
        and each > facts.n_ctx_train
        and "context_length" not in (settings.text("--override-kv") or "")
    ):
        yield _warning(
            settings.place("--ctx-size"),
            f"each slot would have {each} tokens, and the model was trained with {facts.n_ctx_train}: current"
            " builds keep memory for all and use no more than it was trained with",
            f"set spec.engine.contextSize so that each slot has at most {facts.n_ctx_train}",
        )


def _draft(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """common/speculative.cpp, common_speculative_init: without a draft model these settings are never read."""
    if settings.get("--model-draft", "--spec-draft-hf", "--hf-repo-draft"):
        return
    types = (settings.text("--spec-type") or "").split(",")
    if any(kind not in ("", "none", "draft-simple") for kind in types) or settings.get("--spec-default"):
        return  # the drafts come from the model itself, or from what was said before
    if "draft-simple" in types:
        yield _warning(
            settings.place("--spec-type"),
            "speculative decoding of type draft-simple needs a draft model, and there is none: it stays off",
            "set spec.speculative.draftModel",
        )
    seen: set[str] = set()
    for spelling in _DRAFT_SETTINGS:
        setting = settings.get(spelling)
        if setting and setting.flag.name not in seen:
            seen.add(setting.flag.name)
            yield _warning(
                settings.place(spelling),
                f"{spelling} has no effect without a draft model",
                f"set spec.speculative.draftModel, or remove {spelling}",
            )


_DRAFT_SETTINGS = (
    "--draft-max",
    "--draft-min",
    "--draft-p-min",
    "--spec-draft-n-max",
    "--spec-draft-n-min",
    "--n-gpu-layers-draft",
    "--ctx-size-draft",
    "--cache-type-k-draft",
    "--cache-type-v-draft",
    "--device-draft",
    "--threads-draft",
    "--override-tensor-draft",
)


def _draft_length(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """common/speculative.cpp: drafts shorter than the minimum are thrown away."""
    low = settings.number("--spec-draft-n-min", "--draft-min")
    high = settings.number("--spec-draft-n-max", "--draft-max")
    if low is not None and high is not None and low > high:
        yield _warning(
            settings.place("--spec-draft-n-min", "--draft-min"),
            f"a draft of at most {high} tokens is never as long as the minimum of {low}: every draft is thrown away",
            "set spec.speculative.minTokens to at most spec.speculative.maxTokens",
        )


def _projector(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """tools/server/server-context.cpp, load_model: ctx_shift and cache_reuse are switched off with a projector."""
    if not settings.get("--mmproj"):
        for spelling in ("--image-min-tokens", "--image-max-tokens", "--mmproj-offload", "--mmproj-device"):
            if settings.get(spelling):
                yield _warning(
                    settings.place(spelling), f"{spelling} has no effect without a projector", "set spec.projector"
                )
        return
    if settings.is_on("--context-shift"):
        yield _warning(
            settings.place("--context-shift"),
            "llama-server switches context shift off for a model with a projector",
            "remove --context-shift",
        )
    if settings.number("--cache-reuse"):
        yield _warning(
            settings.place("--cache-reuse"),
            "llama-server switches cache reuse off for a model with a projector",
            "remove --cache-reuse",
        )


def _prompt_cache(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """tools/server/server-context.cpp, update_slots (n_cache_reuse) and init (cache_idle_slots)."""
    if settings.number("--cache-reuse") and settings.is_on("--cache-prompt") is False:
        yield _warning(
            settings.place("--cache-reuse"),
            "--cache-reuse has no effect where prompts are not cached",
            "remove --no-cache-prompt or --cache-reuse",
        )
    if settings.is_on("--cache-idle-slots") and settings.number("--cache-ram") == 0:
        yield _warning(
            settings.place("--cache-idle-slots"),
            "--cache-idle-slots has no effect without a prompt cache on the host",
            "set --cache-ram, or remove --cache-idle-slots",
        )


def _templates(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """common/chat.cpp, common_chat_verify_template: without Jinja only built-in templates are taken."""
    template = settings.text("--chat-template")
    if template is None or settings.is_on("--jinja") is not False:
        return
    if settings.match.catalogue.chat_templates and template not in settings.match.catalogue.chat_templates:
        yield _error(
            settings,
            settings.place("--chat-template"),
            "without Jinja llama-server takes only its built-in chat templates, and will not start with"
            f" {shown(template)}",
            "remove --no-jinja, or use a preset in spec.chatTemplate",
            "--jinja",
        )


def _one_of(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """common/arg.cpp: these flags write the same parameter, and the last one wins without a word."""
    for group, what in _SAME_PARAMETER:
        given = [(setting.place, spelling) for spelling in group if (setting := settings.get(spelling))]
        if len(given) < 2:
            continue
        flags = list(dict.fromkeys(spelling for _, spelling in given))
        if len({setting.flag.name for spelling in flags if (setting := settings.get(spelling))}) > 1:
            yield _conflict(
                Severity.ERROR,
                given[-1][0],
                f"{' and '.join(flags)} both set {what}: by {' and by '.join(place for place, _ in given)};"
                " llama-server uses the last one only",
                "keep one of them",
            )


_SAME_PARAMETER: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--grammar", "--grammar-file", "--json-schema", "--json-schema-file"), "the grammar"),
    (("--chat-template", "--chat-template-file"), "the chat template"),
    (("--rope-scale", "--rope-freq-scale"), "the RoPE scale"),
    (("--verbose", "--verbosity"), "the verbosity"),
    (("--mlock", "--load-mode"), "how the model is loaded"),
    (("--mmap", "--load-mode"), "how the model is loaded"),
    (("--direct-io", "--load-mode"), "how the model is loaded"),
)


def _tools_under_grammar(settings: EffectiveSettings, _: ModelFacts) -> Iterator[Finding]:
    """A grammar of the server holds for tool calls as well (measured on b11669). Typed fields say so themselves."""
    for spelling in _SAME_PARAMETER[0][0]:
        setting = settings.get(spelling)
        if setting and setting.place.startswith(("spec.extraArgs", "spec.env")):
            yield Finding(
                severity=Severity.WARNING,
                code=FindingCode.TOOLS_UNDER_GRAMMAR,
                field=setting.place,
                message=f"{spelling} holds for every request, so tool calls cannot work",
                suggestion="send the grammar with the requests that need it, as response_format or grammar",
            )
            return


_RULES: tuple[_Rule, ...] = (
    _quantized_v,
    _latent_attention,
    _tensor_parallel,
    _devices,
    _embeddings,
    _context,
    _draft,
    _draft_length,
    _projector,
    _prompt_cache,
    _templates,
    _one_of,
    _tools_under_grammar,
)
