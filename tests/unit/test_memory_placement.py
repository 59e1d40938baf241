"""Where weights, caches, adapters and projectors land, and what a context holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.memory.context import context_of
from llamamodel_operator.core.memory.estimate import Draft, MemoryEstimate, estimate_memory
from llamamodel_operator.core.memory.grouping import MemoryModel
from llamamodel_operator.core.memory.placement import HOST, place
from llamamodel_operator.core.memory.settings import ALL_LAYERS, MemorySettings
from support.descriptions import described, gold_model

EIGHT = MemoryModel.of(gold_model("llama-3.1-8b"))
EXPERTS = MemoryModel.of(gold_model("qwen3-30b-a3b"))


def placed(settings: MemorySettings, *, gpus: int, model: MemoryModel = EIGHT) -> str:
    """Devices of the layers and of the output, a run of equal ones as one: "host*3 0*30"."""
    placement = place(model, settings, gpus=gpus)
    runs: list[tuple[int, int]] = []
    for device in (*placement.layers, placement.output):
        if runs and runs[-1][0] == device:
            runs[-1] = (device, runs[-1][1] + 1)
        else:
            runs.append((device, 1))
    return " ".join(f"{'host' if device == HOST else device}*{count}" for device, count in runs)


PLACES: list[tuple[dict[str, Any], int, str]] = [
    ({}, 1, "0*33"),
    ({}, 0, "host*33"),
    ({"gpu_layers": 0}, 1, "host*33"),
    ({"gpu_layers": 1}, 1, "host*32 0*1"),
    ({"gpu_layers": 10}, 2, "host*23 0*5 1*5"),
    ({}, 2, "0*17 1*16"),
    ({"tensor_split": (3.0, 1.0)}, 2, "0*25 1*8"),
    ({"tensor_split": (0.0, 1.0)}, 2, "1*33"),
    ({"tensor_split": (1.0,)}, 2, "0*33"),
    ({"tensor_split": (0.0, 0.0)}, 2, "0*17 1*16"),
    ({"tensor_split": (float("nan"), float("inf"))}, 2, "0*17 1*16"),
    ({"split_mode": "none"}, 2, "0*33"),
    ({"split_mode": "none", "main_gpu": 1}, 2, "1*33"),
    ({"split_mode": "none", "main_gpu": -1}, 2, "host*33"),
    ({"split_mode": "row"}, 2, "0*17 1*16"),
    ({"gpu_layers": -5}, 2, "host*33"),
]


@pytest.mark.parametrize(("keys", "gpus", "expected"), PLACES, ids=str)
def test_layers_are_placed_as_llama_cpp_does(keys: dict[str, Any], gpus: int, expected: str) -> None:
    assert placed(MemorySettings(**keys), gpus=gpus) == expected


def estimate(model: MemoryModel = EIGHT, *, gpus: int = 1, **keys: Any) -> MemoryEstimate:
    return estimate_memory(model, settings=MemorySettings(**{"context_size": 8192, "slots": 1, **keys}), gpus=gpus)


def test_split_modes_keep_the_sum_of_weights() -> None:
    by_layer = estimate(gpus=2)
    for mode in ("row", "tensor"):
        divided = estimate(gpus=2, split_mode=mode)
        lost = sum(gpu.weights for gpu in by_layer.gpus) - sum(gpu.weights for gpu in divided.gpus)
        assert abs(lost) < 1024  # factors of rotary positions, of which each device with a whole layer has its own
        assert abs(divided.gpus[0].weights - divided.gpus[1].weights) < 2
        assert f"split mode {mode}" in divided.uncertain[0]
    assert by_layer.uncertain == ()


def test_a_main_gpu_that_is_not_there_is_said() -> None:
    assert "main GPU 3 is not one of 2" in estimate(gpus=2, split_mode="none", main_gpu=3).uncertain[0]


def test_experts_on_the_cpu_are_moved_to_the_host() -> None:
    none, twelve, all_layers = (
        estimate(EXPERTS, cpu_moe_layers=count).gpus[0].weights for count in (0, 12, ALL_LAYERS)
    )
    assert none > twelve > all_layers
    assert estimate(EXPERTS, cpu_moe_layers=48).gpus[0].weights == all_layers


def test_the_first_pattern_that_matches_decides() -> None:
    both = (("attn_q", "CUDA1"), ("blk", "CPU"))
    moved = place(EIGHT, MemorySettings(override_tensors=both), gpus=2).moved
    assert (moved["blk.0.attn_q.weight"], moved["blk.0.attn_k.weight"]) == (1, HOST)
    assert "output.weight" not in moved


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (("(a+)+", "CPU"), "is not followed: a repetition"),
        (("attn", "CUDA7"), "'CUDA7' is not a known buffer type"),
        (("attn", "somewhere"), "'somewhere' is not a known buffer type"),
    ],
)
def test_an_override_that_cannot_be_followed_is_said(override: tuple[str, str], reason: str) -> None:
    found = estimate(override_tensors=(override,))
    assert reason in found.uncertain[0]
    assert found.gpus == estimate().gpus


def an_adapter(*targets: str) -> GgufModel:
    rows = [[f"{target}.lora_{which}", "F16", [64, 32], []] for target in targets for which in ("a", "b")]
    return described({"metadata": {"general.type": "adapter"}, "tensors": [*rows, ["x_norm.weight", "F32", [8], []]]})


def test_each_pair_of_an_adapter_is_where_its_tensor_is() -> None:
    adapter = an_adapter("blk.0.attn_q.weight", "blk.31.attn_q.weight", "token_embd.weight")
    found = estimate_memory(EIGHT, settings=MemorySettings(), gpus=2, adapters=[adapter, adapter])
    pair = 2 * 2 * 64 * 32 * 2
    assert [device.adapters for device in (*found.gpus, found.host)] == [pair, pair, pair]


def a_projector(**keys: int) -> GgufModel:
    usual = {"image_size": 896, "patch_size": 14, "embedding_length": 1152, "feed_forward_length": 4304}
    metadata = {f"clip.vision.{key}": value for key, value in (usual | keys).items()}
    return described(
        {
            "metadata": {"general.architecture": "clip", "clip.vision.attention.head_count": 16, **metadata},
            "tensors": [["v.patch_embd.weight", "F16", [64, 64], []]],
        }
    )


def test_a_projector_is_on_the_first_gpu_unless_kept_off() -> None:
    for offload, place_of in ((True, [True, False, False]), (False, [False, False, True])):
        found = estimate_memory(
            EIGHT, settings=MemorySettings(projector_offload=offload), gpus=2, projector=a_projector()
        )
        assert [device.projector > 0 for device in (*found.gpus, found.host)] == place_of
        assert "projector" in found.uncertain[-1]


@pytest.mark.parametrize("keys", [{"patch_size": 0}, {"image_size": 0}, {"embedding_length": 0}])
def test_a_projector_with_odd_numbers_is_estimated(keys: dict[str, int]) -> None:
    assert estimate_memory(EIGHT, settings=MemorySettings(), gpus=1, projector=a_projector(**keys)).gpus[0].projector


def test_a_draft_model_lands_on_its_own_devices() -> None:
    small = MemoryModel.of(gold_model("gemma-3-270m-q4_k_m"))
    settings = MemorySettings(context_size=8192, slots=1)
    alone = estimate_memory(EIGHT, settings=settings, gpus=1)
    for layers, on_gpu in ((ALL_LAYERS, True), (0, False)):
        draft = Draft(model=small, settings=replace(settings, gpu_layers=layers))
        both = estimate_memory(EIGHT, settings=settings, gpus=1, draft=draft)
        assert (both.gpus[0].weights > alone.gpus[0].weights) == on_gpu
        assert both.host.weights > alone.host.weights


def test_each_gpu_has_the_drivers_overhead_and_the_host_the_prompt_cache() -> None:
    found = estimate_memory(EIGHT, settings=MemorySettings(prompt_cache_bytes=7), gpus=2, overhead=5)
    assert [gpu.overhead for gpu in found.gpus] == [5, 5]
    assert (found.host.overhead, found.host.prompt_cache) == (0, 7)


CONTEXTS: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({}, (131072, 131072, 1)),
    ({"context_size": 1000}, (1024, 1024, 1)),
    ({"context_size": 8000, "slots": 3}, (8448, 2816, 3)),
    ({"context_size": 8192, "slots": 4, "unified": True}, (8192, 8192, 1)),
    ({"context_size": 1, "slots": 5}, (1280, 256, 5)),
    ({"context_size": 8192, "unified": False}, (8192, 2048, 4)),
]


@pytest.mark.parametrize(("keys", "expected"), CONTEXTS, ids=str)
def test_a_context_is_rounded_as_llama_cpp_does(keys: dict[str, Any], expected: tuple[int, int, int]) -> None:
    context = context_of(EIGHT.geometry, MemorySettings(**keys))
    assert (context.size, context.slot_size, context.streams) == expected


def test_an_embedding_server_keeps_a_row_for_each_token_of_a_batch() -> None:
    vocabulary, width = 128256, 4096
    assert estimate(slots=3).host.output == 3 * vocabulary * 4
    assert estimate(embedding=True).host.output == 512 * (vocabulary + width) * 4
    assert estimate(slots=2, draft_tokens=4).host.output == 2 * 5 * vocabulary * 4
