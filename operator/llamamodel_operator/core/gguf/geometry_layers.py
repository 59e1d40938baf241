"""Each layer of a model, as llama.cpp reads it from the header: heads, window, cache, state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llamamodel_operator.core.gguf import geometry_rules as rules
from llamamodel_operator.core.gguf.geometry import Layer, UnsupportedModelError, WindowKind
from llamamodel_operator.core.gguf.geometry_keys import Keys
from llamamodel_operator.core.gguf.model import Tensor

__all__ = ["MOST_LAYERS", "layers_of", "prediction_layers", "window_of"]

MOST_LAYERS = 512
"""LLAMA_MAX_LAYERS in src/llama-hparams.h."""


def layers_of(
    keys: Keys, *, blocks: int, predictions: int, within: Sequence[bool], tensors: Mapping[str, Tensor]
) -> tuple[list[Layer], int]:
    """All layers, and how many of the last do not belong to what a token passes.

    Source: load_hparams in src/llama-model.cpp, llama_model::create_memory for caches and states.
    """
    layers = _with_caches(keys, _plain_layers(keys, blocks, within, tensors), blocks - predictions)
    return _rearranged(keys, layers, predictions)


def prediction_layers(keys: Keys, blocks: int, tensors: Mapping[str, Tensor]) -> int:
    """Blocks at the end that predict further tokens (n_layer_nextn); llama-server loads them for --spec-type only."""
    count = keys.whole("nextn_predict_layers", 0)
    if count > blocks:
        raise UnsupportedModelError(
            f"{keys.architecture}.nextn_predict_layers is {count}, expected at most the {blocks} blocks; "
            "convert the model again"
        )
    if keys.architecture == "deepseek4" and f"blk.{blocks - count}.nextn.eh_proj.weight" not in tensors:
        return 0
    return count


def window_of(keys: Keys, blocks: int, depth: int) -> tuple[WindowKind, int, list[bool]]:
    """Kind and size of the window, and which blocks are within it (load_swa_pattern, set_swa_pattern)."""
    nowhere = [False] * blocks
    rule = rules.WINDOWS.get(keys.architecture)
    size = keys.whole("attention.sliding_window", 0)
    if keys.architecture == "lfm2" and size:
        kv_heads = keys.per_layer("attention.head_count_kv", blocks, 0)
        return "standard", size, [heads != 0 and layer < depth for layer, heads in enumerate(kv_heads)]
    if rule is None or (rule.optional and not size):
        return "none", 0, nowhere
    if keys.architecture == "exaone4" and depth != 64:
        return "none", 0, nowhere
    if keys.architecture == "llama4" and keys.has("attention.sliding_window") and not size:
        return "none", 0, nowhere
    if not size and not rule.default:
        size = keys.whole("attention.sliding_window")
    listed = keys.several("attention.sliding_window_pattern")
    if listed is not None:
        within = [bool(item) for item in listed[:blocks]]
        return rule.kind, rule.fixed or size or rule.default, within + [False] * (blocks - len(within))
    if rule.period is None:
        raise UnsupportedModelError(
            f"{keys.architecture}.attention.sliding_window_pattern is missing: llama.cpp needs it, a true or false "
            "for each layer; convert the model again"
        )
    period = keys.whole("attention.sliding_window_pattern", rule.period)
    within = [layer < depth and _is_within(layer, period, rule.dense_first) for layer in range(blocks)]
    if keys.architecture == "deepseek4":
        within = [True] * blocks
    return rule.kind, rule.fixed or size or rule.default, within


def _is_within(layer: int, period: int, dense_first: bool) -> bool:
    if period == 0:
        return True
    return layer % period != 0 if dense_first else layer % period < period - 1


def _plain_layers(keys: Keys, blocks: int, within: Sequence[bool], tensors: Mapping[str, Tensor]) -> list[Layer]:
    """Heads and widths of each block (load_hparams), without the question of caches."""
    heads = keys.per_layer("attention.head_count", blocks, 0)
    kv_heads = heads
    if keys.has("attention.head_count_kv"):
        kv_heads = keys.per_layer("attention.head_count_kv", blocks)
    widths = keys.per_layer("feed_forward_length", blocks, 0)
    used = keys.per_layer("expert_used_count", blocks, 0)
    key = value = 0
    if heads[0] or keys.architecture == "plamo2":
        each = keys.whole("embedding_length") // heads[0] if heads[0] else 0
        key = keys.whole("attention.key_length", each)
        value = keys.whole("attention.value_length", each)
    rope = keys.whole("rope.dimension_count", key) if heads[0] else 0
    lengths = {
        False: (key, value, rope),
        True: (
            keys.whole("attention.key_length_swa", key),
            keys.whole("attention.value_length_swa", value),
            keys.whole("rope.dimension_count_swa", rope),
        ),
    }
    result = []
    for index in range(blocks):
        own_key, own_value, own_rope = lengths[within[index]]
        down = tensors.get(f"blk.{index}.ffn_down_exps.weight")
        from_tensor = down.shape[0] if down is not None and down.shape else 0
        result.append(
            Layer(
                heads=heads[index],
                kv_heads=kv_heads[index],
                key_length=own_key,
                value_length=own_value,
                rope_length=own_rope,
                feed_forward=widths[index],
                expert_feed_forward=from_tensor,
                experts_used=used[index] if from_tensor else 0,
                window=within[index],
            )
        )
    return result


def _with_caches(keys: Keys, layers: Sequence[Layer], depth: int) -> list[Layer]:
    """The layers with what llama_model::create_memory gives each: cache, state, indexer."""
    architecture = keys.architecture
    blocks = len(layers)
    recurrent = _recurrent_layers(keys, layers, depth)
    owners = _cache_owners(keys, blocks)
    further = set(keys.several("ple.layers") or ()) if architecture == "qwen4exp" else set[int]()
    result = []
    for index, layer in enumerate(layers):
        if architecture in rules.MEMORYLESS or architecture in rules.RECURRENT:
            cached = False
        elif architecture == "falcon-h1":
            cached = True
        elif architecture in ("nemotron_h", "nemotron_h_moe"):
            cached = not recurrent[index] and layer.feed_forward == 0
        elif architecture in rules.RECURRENT_WITHOUT_KV_HEADS:
            cached = not recurrent[index] and (index < depth or architecture != "glm5-next")
        elif architecture in rules.INTERVALS:
            cached = index < depth and not recurrent[index]
        elif architecture == "minimax-m3" or (architecture == "hy_v4" and keys.whole("attention.indexer.top_k", 0)):
            cached = True
        else:
            attends = index < depth or depth == 0 or architecture in rules.CACHED_PREDICTIONS
            cached = attends and owners[index] is None
        result.append(
            replace(
                layer,
                cached=cached,
                recurrent=recurrent[index],
                shares_cache_of=owners[index],
                further_state=_further_state(keys) if index in further else 0,
                loaded=index < depth or depth == 0,
            )
        )
    return _with_indexers(keys, result, depth)


def _further_state(keys: Keys) -> int:
    """f32 elements of a state for n-gram embeddings (llama_hparams::ple_conv_state)."""
    kernel, grams = keys.whole("ple.conv_kernel", 0), keys.whole("ple.ngram_size", 0)
    return max(kernel - 1, 0) * grams * keys.whole("hyper_connection.count", 0) * keys.whole("embedding_length")


def _recurrent_layers(keys: Keys, layers: Sequence[Layer], depth: int) -> list[bool]:
    """is_recr_impl, by the architecture."""
    architecture, blocks = keys.architecture, len(layers)
    if architecture in rules.RECURRENT:
        return [index < depth for index in range(blocks)]
    if architecture == "falcon-h1":
        return [True] * blocks
    if architecture in ("nemotron_h", "nemotron_h_moe"):
        return [index < depth and not layer.kv_heads and not layer.feed_forward for index, layer in enumerate(layers)]
    if architecture in rules.RECURRENT_WITHOUT_KV_HEADS:
        return [index < depth and not layer.kv_heads for index, layer in enumerate(layers)]
    if architecture in rules.INTERVALS:
        if keys.has("attention.recurrent_layers"):
            listed = keys.per_layer("attention.recurrent_layers", blocks)
            return [index < depth and bool(item) for index, item in enumerate(listed)]
        interval = keys.whole("full_attention_interval", rules.INTERVALS[architecture])
        if interval == 0:
            raise UnsupportedModelError(
                f"{architecture}.full_attention_interval is 0, expected 1 or more; convert the model again"
            )
        return [index < depth and (index + 1) % interval != 0 for index in range(blocks)]
    stateful = architecture not in rules.KNOWN and any(
        keys.has(name) for name in ("ssm.state_size", "wkv.head_size", "kda.head_dim", "shortconv.l_cache")
    )
    return [stateful] * blocks


def _cache_owners(keys: Keys, blocks: int) -> list[int | None]:
    """Whose cache a layer reads that has none of its own (n_layer_kv_from_start, the reuse callback)."""
    if keys.architecture == "gemma3n":
        first = 20
    elif keys.architecture == "gemma4":
        first = blocks - keys.whole("attention.shared_kv_layers", 0)
    else:
        return [None] * blocks
    _, _, within = window_of(keys, blocks, blocks)
    return [None if index < first else max(first - (2 if within[index] else 1), 0) for index in range(blocks)]


def _with_indexers(keys: Keys, layers: list[Layer], depth: int) -> list[Layer]:
    """Sparse attention's second cache (llama_kv_cache_dsa, llama_kv_cache_msa, llama_memory_hybrid_idx)."""
    architecture = keys.architecture
    length = keys.whole("attention.indexer.key_length", 0)
    if architecture not in rules.INDEXED or not length:
        return layers
    blocks = len(layers)
    if architecture == "hy_v4" and not keys.whole("attention.indexer.top_k", 0):
        return layers
    owning = [1] * blocks
    if architecture in ("dots3note", "glm-dsa", "glm5-next", "hy_v4") and keys.has("attention.indexer.types"):
        owning = (keys.several("attention.indexer.types") or owning)[:blocks]
        owning += [0] * (blocks - len(owning))
    values = 0
    if architecture == "glm5-next":
        length *= 3 if keys.whole("attention.indexer.kpool", 0) else 1
    elif architecture == "qwen4exp":
        length *= 2 if any(keys.several("attention.compress_ratios") or ()) else 1
    first = keys.whole("leading_dense_block_count", 0) if architecture == "minimax-m3" else 0
    result = []
    for index, layer in enumerate(layers):
        beyond = index >= depth and architecture not in ("hy_v4", "minimax-m3")
        attends = layer.cached and not (architecture == "dots3note" and layer.window)
        if architecture == "minimax-m3":
            # llama.cpp keeps values for the indexer as well, which nothing reads
            values = layer.value_length
        owns = attends and not beyond and index >= first and bool(owning[index])
        result.append(replace(layer, index_length=length, index_values=values) if owns else layer)
    return result


def _rearranged(keys: Keys, layers: list[Layer], predictions: int) -> tuple[list[Layer], int]:
    """Layers that llama.cpp adds: repeated ones (nanbeige), one that routes (graniteswitch)."""
    if keys.architecture == "nanbeige":
        loops = max(keys.whole("num_loops", 1), 1)
        if loops * len(layers) > MOST_LAYERS:
            raise UnsupportedModelError(
                f"nanbeige.num_loops is {loops}: {loops * len(layers)} layers, expected at most {MOST_LAYERS}; "
                "convert the model again"
            )
        repeated = [replace(layer, loaded=False) for layer in layers]
        return layers + repeated * (loops - 1), predictions
    if keys.architecture == "graniteswitch":
        router = replace(layers[-1], heads=1, kv_heads=1, feed_forward=0, expert_feed_forward=0, experts_used=0)
        return [*layers, router], 1
    return layers, predictions
