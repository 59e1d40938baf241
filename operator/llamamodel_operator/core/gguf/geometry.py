"""What a model's memory depends on, layer by layer, as llama.cpp's loader reads it from the header."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

__all__ = ["Geometry", "Layer", "UnsupportedModelError", "WindowKind"]

WindowKind = Literal["none", "standard", "chunked", "symmetric"]


class UnsupportedModelError(Exception):
    """The header lacks what llama.cpp needs to load the model, or says what llama.cpp refuses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One block. Blocks for predicted tokens (nextn) come last and are not loaded.

    Attributes:
        heads, kv_heads: of its attention; 0 where it does not attend.
        key_length, value_length: elements of a head in the cache, of the sliding window where `window` is true.
        rope_length: elements of a head that rotary positions turn.
        feed_forward: its dense width; 0 without.
        expert_feed_forward: width of an expert; 0 where it has none.
        experts_used: experts per token; 0 where it has none.
        window: it attends within the sliding window.
        cached: it has rows of its own in the KV cache.
        recurrent: it has a recurrent state.
        shares_cache_of: the layer whose cache it reads, where it has none of its own.
        index_length: elements that the cache of its sparse attention's indexer holds per token; 0 without.
        further_state: f32 elements per slot of a state that the other recurrent layers do not have; 0 without.
        index_values: elements that this cache holds as values; 0 except where llama.cpp keeps them unread.
        loaded: it has weights of its own, and they are loaded.
    """

    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    rope_length: int
    feed_forward: int
    expert_feed_forward: int = 0
    experts_used: int = 0
    window: bool = False
    cached: bool = True
    recurrent: bool = False
    shares_cache_of: int | None = None
    index_length: int = 0
    index_values: int = 0
    further_state: int = 0
    loaded: bool = True


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Of a model.

    Attributes:
        architecture: general.architecture.
        layers: all blocks of the file, predicted tokens' blocks included (llama.cpp: n_layer_all); equal ones are the
            same object.
        prediction_layers: how many of the last blocks only predict further tokens (n_layer_nextn).
        context_length: trained with.
        vocabulary: tokens.
        embedding, embedding_out: width of the residual stream, and of an embedding that the server returns.
        experts: per layer that has them; 0 without.
        shared_feed_forward: width of the shared experts; 0 where the header does not say.
        window: tokens of the sliding window; 0 without.
        window_kind: how it is applied.
        mla: keys and values are one compressed row (multi-head latent attention); only K is cached.
        key_length_mla, value_length_mla: head sizes after decompression; 0 without.
        kv_lora_rank, q_lora_rank: 0 without.
        conv_state, recurrent_state: f32 elements of both states of a recurrent layer, per slot (n_embd_r, n_embd_s).
        ssm_conv, ssm_inner, ssm_state, ssm_rank, ssm_groups: of Mamba and delta nets; 0 without.
        kda_head, wkv_head: head sizes of Kimi's delta attention and of RWKV; 0 without.
        token_shifts: of RWKV.
        short_conv: kernel of a short convolution (LFM2); 0 without.
        indexer_heads, indexer_top_k: of sparse attention; 0 without.
        causal: attention is.
        memory: it has a cache or a state at all; false for embedding models and diffusion.
        positions: numbers per token's position: 4 for images' multi-dimensional rotary positions.
        alibi: linear biases instead of rotary positions.
        pooling: the model's own: none, mean, cls, last, rank; None where the header does not say.
        per_layer_embedding: width of a layer's own input embedding; 0 without.
        deepstack_layers: layers that take further image embeddings; 0 without.
        decoder_layers: of an encoder-decoder model; 0 for others.
        uncertain: why figures that are made of this may be wrong; empty where each rule is known.
    """

    architecture: str
    layers: tuple[Layer, ...]
    prediction_layers: int = 0
    context_length: int
    vocabulary: int
    embedding: int
    embedding_out: int
    experts: int = 0
    shared_feed_forward: int = 0
    window: int = 0
    window_kind: WindowKind = "none"
    mla: bool = False
    key_length_mla: int = 0
    value_length_mla: int = 0
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    conv_state: int = 0
    recurrent_state: int = 0
    ssm_conv: int = 0
    ssm_inner: int = 0
    ssm_state: int = 0
    ssm_rank: int = 0
    ssm_groups: int = 0
    kda_head: int = 0
    wkv_head: int = 0
    token_shifts: int = 0
    short_conv: int = 0
    indexer_heads: int = 0
    indexer_top_k: int = 0
    causal: bool = True
    memory: bool = True
    positions: int = 1
    alibi: bool = False
    pooling: str | None = None
    per_layer_embedding: int = 0
    deepstack_layers: int = 0
    decoder_layers: int = 0
    uncertain: tuple[str, ...] = ()

    @cached_property
    def kinds(self) -> tuple[Layer, ...]:
        """The layers that differ, each once, in the order in which they come."""
        return tuple({id(layer): layer for layer in self.layers}.values())

    @property
    def depth(self) -> int:
        """Layers that a token passes (llama.cpp: n_layer)."""
        return len(self.layers) - self.prediction_layers
