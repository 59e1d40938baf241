"""What memory depends on, per layer and architecture: each rule, and what happens without one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from gguf.constants import MODEL_ARCH_NAMES
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gguf.geometry import Geometry, UnsupportedModelError
from llamamodel_operator.core.gguf.geometry_reading import geometry_of
from llamamodel_operator.core.gguf.geometry_rules import ALIBI, INDEXED, KNOWN, MANY_POSITIONS, NOT_COVERED, WINDOWS
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.memory.estimate import estimate_memory
from llamamodel_operator.core.memory.settings import MemorySettings
from support.descriptions import GOLD, gold_model, made_up

# LLM_ARCH_NAMES in src/llama-arch.cpp, b11434
LLAMA_CPP_ARCHITECTURES = (GOLD / "llama_cpp_architectures.txt").read_text().split()


def marks(geometry: Geometry, attribute: str) -> str:
    """A layer with it is an x."""
    return "".join("x" if getattr(layer, attribute) else "." for layer in geometry.layers)


@pytest.mark.parametrize("name", sorted({*LLAMA_CPP_ARCHITECTURES, *MODEL_ARCH_NAMES.values()}))
def test_each_architecture_has_a_rule_or_is_named_as_not_covered(name: str) -> None:
    assert (name in KNOWN) != (name in NOT_COVERED)


def test_rules_are_for_architectures_that_llama_cpp_knows() -> None:
    named = KNOWN | NOT_COVERED.keys() | WINDOWS.keys() | INDEXED | MANY_POSITIONS | ALIBI
    assert named - set(LLAMA_CPP_ARCHITECTURES) == set()


def test_an_unknown_architecture_is_estimated_on_the_high_side_and_says_so() -> None:
    unknown = made_up("brandnew", attention__sliding_window=8, ssm__state_size=16, ssm__inner_size=128)
    known = made_up("llama")
    settings = MemorySettings(context_size=4096, slots=1)
    high, low = (estimate_memory(model, settings=settings, gpus=1) for model in (unknown, known))
    assert high.gpus[0].kv_cache >= low.gpus[0].kv_cache
    assert high.gpus[0].recurrent_state == 4 * 16 * 128 * 4
    assert low.uncertain == ()
    assert "architecture brandnew is not known" in high.uncertain[0]


@pytest.mark.parametrize("name", sorted(NOT_COVERED))
def test_an_architecture_that_is_not_covered_is_uncertain(name: str) -> None:
    lists = {"attention__sliding_window_pattern": [True] * 4} if WINDOWS.get(name) else {}
    geometry = geometry_of(made_up(name, attention__sliding_window=128, **lists))
    assert name in geometry.uncertain[0]
    assert NOT_COVERED[name] in geometry.uncertain[0]


WINDOW_CASES = [
    ("gemma2", {}, 4096, "x.x.x.x."),
    ("gemma2", {"attention__sliding_window": 100}, 100, "x.x.x.x."),
    ("gemma3", {"attention__sliding_window": 512}, 512, "xxxxx.xx"),
    ("gemma3", {}, 0, "........"),
    ("gemma3n", {"attention__sliding_window": 512}, 512, "xxxx.xxx"),
    ("gpt-oss", {"attention__sliding_window": 128}, 128, "x.x.x.x."),
    ("cohere2", {"attention__sliding_window": 4096}, 4096, "xxx.xxx."),
    ("cohere2moe", {"attention__sliding_window": 4096}, 4096, ".xxx.xxx"),
    ("llama4", {}, 8192, "xxx.xxx."),
    ("llama4", {"attention__sliding_window": 0}, 0, "........"),
    ("smallthinker", {"attention__sliding_window": 8}, 4096, ".xxx.xxx"),
    ("phi3", {"attention__sliding_window": 2048}, 0, "........"),
    ("llama", {"attention__sliding_window": 2048}, 0, "........"),
    ("exaone4", {"attention__sliding_window": 2048}, 0, "........"),
    ("modern-bert", {"attention__sliding_window": 128}, 128, ".xx.xx.x"),
    ("olmo2", {"attention__sliding_window": 64, "attention__sliding_window_pattern": 2}, 64, "x.x.x.x."),
    ("mimo2", {"attention__sliding_window": 64, "attention__sliding_window_pattern": [True] * 3}, 64, "xxx....."),
    ("lfm2", {"attention__sliding_window": 64, "attention__head_count_kv": [0, 2] * 4}, 64, ".x.x.x.x"),
]


@pytest.mark.parametrize(("name", "keys", "size", "within"), WINDOW_CASES, ids=lambda value: str(value)[:40])
def test_windows_follow_each_architectures_pattern(name: str, keys: dict[str, Any], size: int, within: str) -> None:
    geometry = geometry_of(made_up(name, block_count=8, **keys))
    assert (geometry.window, marks(geometry, "window")) == (size, within)


def test_exaone_4_has_a_window_with_64_layers_only() -> None:
    assert marks(geometry_of(made_up("exaone4", block_count=64)), "window") == "xxx." * 16


CACHE_CASES = [
    ("llama", {}, "xxxxxx", "......"),
    ("bert", {}, "......", "......"),
    ("t5", {}, "xxxxxx", "......"),
    ("mamba", {"attention__head_count": 0}, "......", "xxxxxx"),
    ("rwkv7", {"attention__head_count": None, "wkv__head_size": 64}, "......", "xxxxxx"),
    ("jamba", {"attention__head_count_kv": [0, 0, 2, 0, 0, 2]}, "..x..x", "xx.xx."),
    ("falcon-h1", {}, "xxxxxx", "xxxxxx"),
    (
        "nemotron_h",
        {"attention__head_count_kv": [0, 0, 2, 0, 0, 0], "feed_forward_length": [0, 9, 0, 9, 0, 9]},
        "..x...",
        "x...x.",
    ),
    ("qwen3next", {}, "...x..", "xxx.xx"),
    ("qwen35", {"full_attention_interval": 3}, "..x..x", "xx.xx."),
    ("qwen35", {"nextn_predict_layers": 1}, "...x..", "xxx.x."),
    ("qwen35", {"attention__recurrent_layers": [False, True] * 3}, "x.x.x.", ".x.x.x"),
    ("glm4moe", {"nextn_predict_layers": 2}, "xxxxxx", "......"),
    ("mimo2", {"nextn_predict_layers": 2, "attention__sliding_window": 8}, "xxxx..", "......"),
    ("gemma4", {"attention__shared_kv_layers": 2, "attention__sliding_window": 64}, "xxxx..", "......"),
]


@pytest.mark.parametrize(("name", "keys", "cached", "recurrent"), CACHE_CASES, ids=lambda value: str(value)[:40])
def test_each_layer_has_the_cache_and_the_state_of_its_architecture(
    name: str, keys: dict[str, Any], cached: str, recurrent: str
) -> None:
    if name in ("gemma4", "mimo2"):
        keys = {**keys, "attention__sliding_window_pattern": [True] * 6}
    geometry = geometry_of(made_up(name, block_count=6, **keys))
    assert (marks(geometry, "cached"), marks(geometry, "recurrent")) == (cached, recurrent)


def test_layers_that_share_a_cache_name_its_owner() -> None:
    geometry = geometry_of(made_up("gemma3n", block_count=25, attention__sliding_window=512))
    # with a period of 5, layers 20 to 23 are within the window, 24 is not
    assert [layer.shares_cache_of for layer in geometry.layers[19:]] == [None, 18, 18, 18, 18, 19]


STATE_CASES = [
    ("mamba", {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16}, 3 * 128, 16 * 128),
    (
        "mamba2",
        {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16, "ssm__group_count": 2},
        3 * (128 + 2 * 2 * 16),
        16 * 128,
    ),
    ("rwkv6", {"wkv__head_size": 32}, 2 * 64, 64 * 32),
    ("arwkv7", {"wkv__head_size": 32, "token_shift_count": 1}, 64, 64 * 32),
    ("lfm2", {"shortconv__l_cache": 3, "attention__head_count_kv": [0, 2, 0, 2]}, 64 * 2, 0),
    (
        "kimi-linear",
        {"kda__head_dim": 16, "ssm__conv_kernel": 4, "attention__head_count_kv": [0, 0, 0, 1]},
        3 * 3 * 4 * 16,
        16 * 16 * 4,
    ),
    ("minimax-01", {"attention__key_length": 32}, 0, 32 * 32 * 4),
]


@pytest.mark.parametrize(("name", "keys", "conv", "state"), STATE_CASES, ids=lambda value: str(value)[:40])
def test_states_have_the_size_of_their_architecture(name: str, keys: dict[str, Any], conv: int, state: int) -> None:
    geometry = geometry_of(made_up(name, **keys))
    assert (geometry.conv_state, geometry.recurrent_state) == (conv, state)


def test_a_layer_with_embeddings_of_n_grams_has_a_further_state() -> None:
    keys = {"ple__layers": [1], "ple__conv_kernel": 4, "ple__ngram_size": 3, "hyper_connection__count": 2}
    geometry = geometry_of(made_up("qwen4exp", **keys))
    assert [layer.further_state for layer in geometry.layers] == [0, 3 * 3 * 2 * 64, 0, 0]


INDEX_CASES: list[tuple[str, dict[str, Any], list[int], int]] = [
    ("deepseek32", {}, [128] * 4, 0),
    ("glm-dsa", {"attention__indexer__types": [1, 0, 0, 1]}, [128, 0, 0, 128], 0),
    ("minimax-m3", {"leading_dense_block_count": 1}, [0, 128, 128, 128], 16),
    ("qwen4exp", {"attention__compress_ratios": [0, 4, 0, 4]}, [0, 0, 0, 256], 0),
    ("glm5-next", {"attention__indexer__kpool": 4, "attention__head_count_kv": [0, 1, 0, 1]}, [0, 384, 0, 384], 0),
    ("hy_v4", {"attention__indexer__top_k": 0}, [0] * 4, 0),
    ("hy_v4", {"attention__indexer__top_k": 64}, [128] * 4, 0),
    ("llama", {}, [0] * 4, 0),
]


@pytest.mark.parametrize(("name", "keys", "lengths", "values"), INDEX_CASES, ids=lambda value: str(value)[:40])
def test_layers_of_sparse_attention_have_an_indexers_cache(
    name: str, keys: dict[str, Any], lengths: list[int], values: int
) -> None:
    geometry = geometry_of(made_up(name, attention__indexer__key_length=128, **keys))
    assert [layer.index_length for layer in geometry.layers] == lengths
    assert max(layer.index_values for layer in geometry.layers) == values


REFUSED = [
    ({"block_count": None}, "llama.block_count"),
    ({"context_length": None}, "llama.context_length"),
    ({"embedding_length": None}, "llama.embedding_length"),
    ({"block_count": 0}, "llama.block_count is 0, expected 1 to 512"),
    ({"block_count": 10**9}, "llama.block_count is 1000000000"),
    ({"embedding_length": -1}, "llama.embedding_length is '-1'"),
    ({"embedding_length": "many"}, "llama.embedding_length is 'many'"),
    ({"attention__head_count_kv": [1, 2]}, "llama.attention.head_count_kv has 2 numbers, expected one for each of 4"),
    ({"nextn_predict_layers": 5}, "llama.nextn_predict_layers is 5, expected at most the 4 blocks"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_header_that_llama_cpp_would_refuse_is_one_clear_error(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        geometry_of(made_up("llama", **keys))
    assert message in str(error.value)
    assert "convert the model again" in str(error.value)


def test_a_file_without_an_architecture_is_one_clear_error() -> None:
    with pytest.raises(UnsupportedModelError, match=r"general\.architecture"):
        geometry_of(GgufModel(parts=(), metadata={}, lengths={}, tensors=()))


def test_a_window_without_its_layers_is_an_error_where_llama_cpp_needs_them() -> None:
    with pytest.raises(UnsupportedModelError, match=r"gemma4\.attention\.sliding_window_pattern is missing"):
        geometry_of(made_up("gemma4", attention__sliding_window=512))


KEYS = (
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.key_length_mla", "expert_count"),
    *("attention.value_length_mla", "attention.indexer.key_length", "attention.recurrent_layers", "block_count"),
    *("context_length", "embedding_length", "feed_forward_length", "full_attention_interval", "kda.head_dim"),
    *("leading_dense_block_count", "nextn_predict_layers", "num_loops", "ssm.conv_kernel", "ssm.inner_size"),
    *("ssm.state_size", "wkv.head_size", "shortconv.l_cache", "attention.shared_kv_layers", "expert_used_count"),
    *("pooling_type", "decoder_block_count", "token_shift_count", "attention.indexer.top_k", "vocab_size"),
)
NUMBERS = st.one_of(st.integers(0, 8), st.integers(-2, 2**40), st.floats(allow_nan=True), st.booleans(), st.text())
VALUES = st.one_of(NUMBERS, st.lists(st.one_of(st.integers(0, 9), NUMBERS), max_size=9).map(tuple))


@given(
    architecture=st.sampled_from([*sorted(LLAMA_CPP_ARCHITECTURES), "else"]),
    values=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12),
    blocks=st.integers(1, 8),
    gpus=st.integers(0, 3),
)
def test_any_header_gives_an_estimate_or_one_clear_error(
    architecture: str, values: dict[str, Any], blocks: int, gpus: int
) -> None:
    usual = {"block_count": blocks, "context_length": 512, "embedding_length": 64, "attention.head_count": 4}
    metadata: dict[str, Any] = {f"{architecture}.{key}": value for key, value in (usual | values).items()}
    plain = made_up("llama")
    model = GgufModel(
        parts=(),
        metadata={"general.architecture": architecture, **metadata},
        lengths={},
        tensors=plain.tensors,
    )
    with suppress(UnsupportedModelError):
        estimate = estimate_memory(model, settings=MemorySettings(context_size=1024), gpus=gpus)
        assert len(estimate.gpus) == gpus
        assert all(device.total >= 0 for device in (*estimate.gpus, estimate.host))


def experts(geometry: Geometry) -> Sequence[int]:
    return [layer.expert_feed_forward for layer in geometry.layers]


def test_experts_widths_are_those_of_their_tensors() -> None:
    lite = geometry_of(gold_model("deepseek-v2-lite"))
    assert experts(lite) == [0, *[1408] * 26]
    assert [layer.experts_used for layer in lite.layers[:2]] == [0, 6]
    assert lite.mla
    assert (lite.layers[0].key_length, lite.layers[0].kv_heads) == (576, 1)
