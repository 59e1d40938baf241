"""A model's geometry from its header, as llama.cpp's loader reads it."""

from __future__ import annotations

from collections.abc import Mapping

from llamamodel_operator.core.gguf import geometry_rules as rules
from llamamodel_operator.core.gguf.geometry import Geometry, Layer, UnsupportedModelError
from llamamodel_operator.core.gguf.geometry_keys import Keys
from llamamodel_operator.core.gguf.geometry_layers import MOST_LAYERS, layers_of, prediction_layers, window_of
from llamamodel_operator.core.gguf.model import GgufModel, Tensor

__all__ = ["geometry_of"]

POOLING = ("none", "mean", "cls", "last", "rank")


def geometry_of(model: GgufModel) -> Geometry:
    """The geometry of a model; of an architecture without a rule, what its general keys say, on the high side.

    Source: llama_model_base::load_hparams in src/llama-model.cpp, load_arch_hparams in src/models/*.cpp.

    Raises:
        UnsupportedModelError: a key that llama.cpp needs is missing or wrong; the message names it.
    """
    architecture = model.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise UnsupportedModelError(
            "the header has no text under general.architecture, so that llama.cpp cannot load the model; "
            "name a model, not an adapter or a part of one"
        )
    keys = Keys(model, architecture)
    blocks = keys.whole("block_count")
    if not 0 < blocks <= MOST_LAYERS:
        raise UnsupportedModelError(
            f"{architecture}.block_count is {blocks}, expected 1 to {MOST_LAYERS}; convert the model again"
        )
    embedding = keys.whole("embedding_length")
    tensors = {tensor.name: tensor for tensor in model.tensors}
    predictions = prediction_layers(keys, blocks, tensors)
    kind, window, within = window_of(keys, blocks, blocks - predictions)
    layers, predictions = layers_of(keys, blocks=blocks, predictions=predictions, within=within, tensors=tensors)
    kinds: dict[Layer, Layer] = {}
    conv, state = _states(keys, embedding, layers[0].heads)
    pooling = keys.whole("pooling_type", len(POOLING))
    return Geometry(
        architecture=architecture,
        layers=tuple(kinds.setdefault(layer, layer) for layer in layers),
        prediction_layers=predictions,
        context_length=keys.whole("context_length"),
        vocabulary=_vocabulary(keys, tensors),
        embedding=embedding,
        embedding_out=_embedding_out(keys, embedding),
        experts=keys.whole("expert_count", 0),
        shared_feed_forward=_width(tensors, "ffn_down_shexp.weight", blocks),
        window=window if kind != "none" else 0,
        window_kind=kind,
        mla=_is_mla(keys),
        key_length_mla=keys.whole("attention.key_length_mla", 0),
        value_length_mla=keys.whole("attention.value_length_mla", 0),
        kv_lora_rank=keys.whole("attention.kv_lora_rank", 0),
        q_lora_rank=keys.whole("attention.q_lora_rank", 0),
        conv_state=conv,
        recurrent_state=state,
        ssm_conv=keys.whole("ssm.conv_kernel", 0),
        ssm_inner=keys.whole("ssm.inner_size", 0),
        ssm_state=keys.whole("ssm.state_size", 0),
        ssm_rank=keys.whole("ssm.time_step_rank", 0),
        ssm_groups=keys.whole("ssm.group_count", 0),
        kda_head=keys.whole("kda.head_dim", 0),
        wkv_head=keys.whole("wkv.head_size", 0),
        token_shifts=keys.whole("token_shift_count", 2) if keys.has("wkv.head_size") else 0,
        short_conv=keys.whole("shortconv.l_cache", 0),
        indexer_heads=keys.whole("attention.indexer.head_count", 0),
        indexer_top_k=keys.whole("attention.indexer.top_k", 0),
        causal=_is_causal(keys),
        memory=architecture not in rules.MEMORYLESS,
        positions=_positions(keys),
        alibi=_has_alibi(keys, blocks),
        pooling=POOLING[pooling] if pooling < len(POOLING) else None,
        per_layer_embedding=keys.whole("embedding_length_per_layer_input", 0),
        deepstack_layers=_deepstack_layers(keys),
        decoder_layers=keys.whole("decoder_block_count", blocks) if architecture == "t5" else 0,
        uncertain=_uncertain(architecture),
    )


def _uncertain(architecture: str) -> tuple[str, ...]:
    if architecture in rules.KNOWN:
        return ()
    known = rules.NOT_COVERED.get(architecture)
    if known is not None:
        return (f"architecture {architecture}: {known}",)
    return (
        f"architecture {architecture[:40]} is not known: estimated from the header's general keys, "
        "each layer with a full cache and, where the header tells its size, with a recurrent state",
    )


def _states(keys: Keys, embedding: int, heads: int) -> tuple[int, int]:
    """f32 elements of a recurrent layer's states (llama_hparams::n_embd_r, n_embd_s)."""
    conv, inner = keys.whole("ssm.conv_kernel", 0), keys.whole("ssm.inner_size", 0)
    groups, state = keys.whole("ssm.group_count", 0), keys.whole("ssm.state_size", 0)
    wkv, kda = keys.whole("wkv.head_size", 0), keys.whole("kda.head_dim", 0)
    short = keys.whole("shortconv.l_cache", 0)
    if wkv:
        return keys.whole("token_shift_count", 2) * embedding, embedding * wkv
    if short:
        return embedding * (short - 1), state * inner
    if kda:
        return 3 * (conv - 1 if conv else 3) * heads * kda, kda * kda * heads
    rolling = (conv - 1 if conv else 0) * (inner + 2 * groups * state)
    if keys.architecture == "minimax-01":
        length = keys.whole("attention.key_length", embedding // heads if heads else 0)
        return rolling, length * length * heads
    return rolling, state * inner


def _is_mla(keys: Keys) -> bool:
    """Both head sizes are there (llama_hparams::is_mla)."""
    return bool(keys.whole("attention.key_length_mla", 0) and keys.whole("attention.value_length_mla", 0))


def _is_causal(keys: Keys) -> bool:
    if keys.architecture in ("dream", "gemma-embedding", "llada", "llada-moe", "rnd1"):
        return False
    return bool(keys.model.metadata.get(f"{keys.architecture}.attention.causal", True))


def _positions(keys: Keys) -> int:
    if keys.architecture in rules.MANY_POSITIONS:
        return 4
    if keys.architecture in rules.SECTIONED_POSITIONS:
        sections = keys.several("rope.dimension_sections") or []
        return 4 if len(sections) > 1 and sections[0] and sections[1] else 1
    return 1


def _has_alibi(keys: Keys, blocks: int) -> bool:
    if keys.architecture in rules.ALIBI or (keys.architecture == "baichuan" and blocks == 40):
        return True
    bias = keys.model.metadata.get(f"{keys.architecture}.attention.max_alibi_bias")
    return keys.architecture in ("jais", "mpt") and isinstance(bias, int | float) and bias > 0


def _deepstack_layers(keys: Keys) -> int:
    if keys.architecture in ("granite", "granite_swa"):
        mapping = keys.model.metadata.get(f"{keys.architecture}.deepstack_mapping")
        return (
            len({item for item in mapping if isinstance(item, int) and item >= 0}) if isinstance(mapping, tuple) else 0
        )
    return keys.whole("n_deepstack_layers", 0)


def _vocabulary(keys: Keys, tensors: Mapping[str, Tensor]) -> int:
    """Tokens of the vocabulary; of the embedding matrix where the file has no list of them."""
    counted = keys.model.lengths.get("tokenizer.ggml.tokens")
    if counted:
        return counted
    if keys.has("vocab_size"):
        return keys.whole("vocab_size")
    matrix = tensors.get("token_embd.weight")
    return matrix.shape[1] if matrix is not None and len(matrix.shape) > 1 else 0


def _embedding_out(keys: Keys, embedding: int) -> int:
    """Width of an embedding (llama_hparams::n_embd_out)."""
    if keys.architecture in ("deepseek4", "qwen4exp"):
        return keys.whole("hyper_connection.count", 1) * embedding
    return keys.whole("embedding_length_out", 0) or embedding


def _width(tensors: Mapping[str, Tensor], name: str, blocks: int) -> int:
    """First dimension of the first such tensor of a block; 0 without."""
    for index in range(blocks):
        tensor = tensors.get(f"blk.{index}.{name}")
        if tensor is not None and tensor.shape:
            return tensor.shape[0]
    return 0
