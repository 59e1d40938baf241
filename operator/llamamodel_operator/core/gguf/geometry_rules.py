"""Which architecture has which kind of memory: llama.cpp's rules (b11434) as tables.

Sources: src/llama-arch.cpp for the names, load_arch_hparams in src/models/*.cpp for windows and patterns,
llama_model::create_memory in src/llama-model.cpp for caches, llama_model_rope_type for positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamamodel_operator.core.gguf.geometry import WindowKind

__all__ = [
    "ALIBI",
    "ATTENTION",
    "CACHED_PREDICTIONS",
    "INDEXED",
    "INTERVALS",
    "KNOWN",
    "MANY_POSITIONS",
    "MEMORYLESS",
    "NOT_COVERED",
    "RECURRENT",
    "RECURRENT_WITHOUT_KV_HEADS",
    "SECTIONED_POSITIONS",
    "WINDOWS",
    "WindowRule",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowRule:
    """Which layers attend within a sliding window (llama_hparams::set_swa_pattern, load_swa_pattern).

    Attributes:
        period: every so many layers, one attends to everything; 0: none does; None: the header lists the layers.
        dense_first: it is the first of each period, not the last.
        kind: of window.
        default: tokens where the header does not say.
        fixed: tokens whatever the header says; 0 where the header decides.
        optional: without the header's figure there is no window.
    """

    period: int | None
    dense_first: bool = False
    kind: WindowKind = "standard"
    default: int = 0
    fixed: int = 0
    optional: bool = False


WINDOWS = {
    "afmoe": WindowRule(period=4, optional=True),
    "cohere2": WindowRule(period=4),
    "cohere2moe": WindowRule(period=4, dense_first=True),
    "deepseek4": WindowRule(period=0),
    "dflash": WindowRule(period=None, optional=True),
    "dots3note": WindowRule(period=None),
    "exaone-moe": WindowRule(period=4, default=128),
    "exaone4": WindowRule(period=4, default=4096),  # with 64 layers only
    "gemma-embedding": WindowRule(period=6, kind="symmetric"),
    "gemma2": WindowRule(period=2, default=4096),
    "gemma3": WindowRule(period=6, optional=True),
    "gemma3n": WindowRule(period=5),
    "gemma4": WindowRule(period=None),
    "gemma4-assistant": WindowRule(period=None),
    "gpt-oss": WindowRule(period=2),
    "granite_swa": WindowRule(period=None),
    "laguna": WindowRule(period=4, dense_first=True, optional=True),
    "llama4": WindowRule(period=4, kind="chunked", default=8192, fixed=8192),
    "maple": WindowRule(period=None),
    "mellum": WindowRule(period=4, optional=True),
    "mimo2": WindowRule(period=None),
    "modern-bert": WindowRule(period=3, dense_first=True, kind="symmetric", optional=True),
    "muse-glimmer": WindowRule(period=4),
    "olmo2": WindowRule(period=4, optional=True),
    "plamo3": WindowRule(period=8, optional=True),
    "smallthinker": WindowRule(period=4, dense_first=True, fixed=4096, optional=True),
    "spark2_5": WindowRule(period=None),
    "step35": WindowRule(period=None),
}

MEMORYLESS = frozenset(
    (
        *("bert", "clef", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe"),
        *("modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec"),
    )
)
"""Embedding models and diffusion: neither cache nor state (llama_model::create_memory)."""

RECURRENT = frozenset(("arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"))
"""A state in each layer, no cache (llm_arch_is_recurrent)."""

RECURRENT_WITHOUT_KV_HEADS = frozenset(
    (
        *("bailingmoe3", "glm5-next", "granitehybrid", "jamba", "kimi-k3", "kimi-linear", "lfm2", "lfm2moe"),
        *("nemotron_h", "nemotron_h_moe", "plamo2"),
    )
)
"""Hybrids in which a layer with 0 heads for keys has a state, and every other a cache."""

INTERVALS = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4, "qwen4exp": 4}
"""Hybrids in which every so many layers one attends, unless the header lists the recurrent ones or says otherwise."""

INDEXED = frozenset(("deepseek32", "deepseek4", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp"))
"""Sparse attention whose indexer has a cache of its own."""

MANY_POSITIONS = frozenset(
    (
        *("clef", "paddleocr", "qwen2vl", "qwen35", "qwen35moe", "qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen4exp"),
        "dflash",
    )
)
"""Four numbers per position (multi-dimensional rotary positions)."""
SECTIONED_POSITIONS = frozenset(("bailingmoe3", "glm4", "glm4moe", "hunyuan_vl"))
"""Likewise where the header has rotary sections."""

ALIBI = frozenset(("bloom", "jina-bert-v2", "refact"))
"""Linear biases always; others by attention.max_alibi_bias."""

CACHED_PREDICTIONS = frozenset(
    ("bailingmoe2", "cohere2moe", "deepseek2", "exaone-moe", "exaone4", "glm4", "glm4moe", "mistral4")
)
"""Blocks that predict further tokens have a cache in b10434, which nothing reads; not so any more in b11434."""

NOT_COVERED = {
    "clip": "it is a projector, which llama-server loads with --mmproj",
    "deepseek4": "the sizes of its compressed caches are not known; each layer is counted with a full cache",
    "dflash": "it drafts for another model, whose hidden states it shares",
    "eagle3": "it drafts for another model, whose hidden states it shares",
    "gemma4-assistant": "it drafts for another model, whose cache it shares; it is counted with one of its own",
    "gptj": "llama.cpp knows its name, but cannot load it",
    "pockettts": "it makes speech, which llama-server does not serve",
    "qwen3tts": "it makes speech, which llama-server does not serve",
    "wavtokenizer-dec": "it makes speech, which llama-server does not serve",
}
"""Architectures whose figures are uncertain, and why."""

ATTENTION = frozenset(
    (
        *("afmoe", "apertus", "arcee", "arctic", "baichuan", "bailingmoe", "bailingmoe2", "bitnet", "bloom"),
        *("chameleon", "chatglm", "codeshell", "cogvlm", "cohere2", "cohere2moe", "command-r", "dbrx", "deci"),
        *("deepseek", "deepseek2", "deepseek2-ocr", "deepseek32", "dots1", "dots3note", "ernie4_5", "ernie4_5-moe"),
        *("exaone", "exaone-moe", "exaone4", "falcon", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "glm-dsa"),
        *("glm4", "glm4moe", "gpt-oss", "gpt2", "gptneox", "granite", "granite_swa", "granitemoe", "graniteswitch"),
        *("grok", "grovemoe", "hrm_text", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "hy_v4"),
        *("internlm2", "jais", "jais2", "laguna", "llama", "llama-embed", "llama4", "maincoder", "maple", "mellum"),
        *("mimo2", "minicpm", "minicpm3", "minimax-m2", "minimax-m3", "mistral3", "mistral4", "mpt", "muse-glimmer"),
        *("nanbeige", "nemotron", "olmo", "olmo2", "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded"),
        *("phi2", "phi3", "phimoe", "plamo", "plamo3", "plm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3"),
        *("qwen3moe", "qwen3vl", "qwen3vlmoe", "refact", "seed_oss", "smallthinker", "smollm3", "spark2_5"),
        *("stablelm", "starcoder", "starcoder2", "step35", "t5", "t5encoder", "talkie", "xverse"),
    )
)
"""A cache in every layer that does not say otherwise."""

KNOWN = (
    ATTENTION | MEMORYLESS | RECURRENT | RECURRENT_WITHOUT_KV_HEADS | INTERVALS.keys() | {"falcon-h1"}
) - NOT_COVERED.keys()
"""Architectures with a rule."""
