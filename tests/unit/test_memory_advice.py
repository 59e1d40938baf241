"""What fits: the largest context, automatic values, and what to change where nothing does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamodel_operator.core.memory.advice import ChangeKind, changes
from llamamodel_operator.core.memory.estimate import Draft
from llamamodel_operator.core.memory.fitting import Load, fits, largest_context, settle, shared_by_memory
from llamamodel_operator.core.memory.overhead import overhead_of, parse_overheads, vendor_of
from llamamodel_operator.core.memory.settings import ALL_LAYERS, MemorySettings
from support.descriptions import gold_model

GIB = 1 << 30
MIB = 1 << 20


def a_load(model: str = "llama-3.1-8b", *, overhead: int = 0, **changed: Any) -> Load:
    return Load(
        model=gold_model(model),
        settings=MemorySettings(**{"context_size": 8192, "slots": 1, **changed}),
        overhead=overhead,
    )


def total(load: Load, **changed: Any) -> int:
    [gpu] = load.estimate(gpus=1, settings=replace(load.settings, **changed)).gpus
    return gpu.total


def kinds(load: Load, *memory: int) -> list[ChangeKind]:
    return [change.kind for change in changes(load, memory=memory)]


class TestLargestContext:
    def test_it_fits_and_the_next_larger_one_does_not(self) -> None:
        load = a_load()
        found = largest_context(load, memory=(8 * GIB,))
        assert found % 256 == 0
        assert total(load, context_size=found) <= 8 * GIB < total(load, context_size=found + 256)

    def test_it_is_never_more_than_the_model_was_trained_with(self) -> None:
        assert largest_context(a_load(), memory=(800 * GIB,)) == 131_072

    def test_slots_with_caches_of_their_own_each_have_as_much(self) -> None:
        assert largest_context(a_load(slots=2), memory=(800 * GIB,)) == 2 * 131_072
        assert largest_context(a_load(slots=2, unified=True), memory=(800 * GIB,)) == 131_072
        assert largest_context(a_load(slots=3), memory=(8 * GIB,)) % (3 * 256) == 0

    def test_there_is_none_where_the_weights_are_too_large(self) -> None:
        assert largest_context(a_load(), memory=(GIB,)) == 0

    def test_the_gpu_with_the_least_room_decides(self) -> None:
        load, memory = a_load(tensor_split=(1.0, 1.0)), (80 * GIB, 4 * GIB)
        found = largest_context(load, memory=memory)
        assert 0 < found < 131_072
        more = load.estimate(gpus=2, settings=replace(load.settings, context_size=found + 256))
        assert more.gpus[1].total > memory[1]

    @settings(max_examples=25, deadline=None)
    @given(gib=st.integers(1, 40), slots=st.integers(1, 5))
    def test_whatever_the_memory_it_fits(self, gib: int, slots: int) -> None:
        load = a_load(slots=slots)
        if found := largest_context(load, memory=(gib * GIB,)):
            assert total(load, context_size=found) <= gib * GIB


class TestFits:
    @pytest.mark.parametrize(("has", "expected"), [(8 * GIB, True), (4 * GIB, False)])
    def test_each_gpu_needs_room(self, has: int, expected: bool) -> None:
        assert fits(a_load().estimate(gpus=1), (has,)) is expected

    def test_one_gpu_that_is_too_small_is_enough_to_fail(self) -> None:
        assert not fits(a_load().estimate(gpus=2), (80 * GIB, GIB))

    def test_gpus_that_nobody_has_do_not_fit(self) -> None:
        assert not fits(a_load().estimate(gpus=2), (80 * GIB,))

    def test_without_a_gpu_there_is_nothing_to_fit(self) -> None:
        assert fits(a_load().estimate(gpus=0), ())

    def test_the_overhead_counts(self) -> None:
        need = total(a_load())
        assert fits(a_load().estimate(gpus=1), (need,))
        assert not fits(a_load(overhead=640 * MIB).estimate(gpus=1), (need,))


class TestChanges:
    def test_each_change_alone_makes_it_fit(self) -> None:
        load, memory = a_load(context_size=65_536, slots=4), (12 * GIB,)
        found = changes(load, memory=memory)
        assert found
        for change in found:
            assert fits(change.estimate, (*memory, *memory * 15))
            assert change.fields
            if change.kind is not ChangeKind.GPU:
                assert load.estimate(gpus=1, settings=change.settings) == change.estimate
                assert change.flags

    def test_they_come_in_the_order_of_harm(self) -> None:
        found = kinds(a_load(context_size=65_536, slots=4), 12 * GIB)
        assert found == sorted(found, key=list(ChangeKind).index)
        assert found[0] is ChangeKind.CACHE_Q8_0
        assert found[-1] is ChangeKind.GPU

    def test_a_smaller_context_is_the_largest_that_fits(self) -> None:
        load = a_load(context_size=131_072)
        [change] = [c for c in changes(load, memory=(12 * GIB,)) if c.kind is ChangeKind.CONTEXT]
        size = largest_context(load, memory=(12 * GIB,))
        assert change.fields == {"engine.contextSize": size}
        assert change.flags == ("-c", str(size))

    def test_fewer_slots_keep_the_context_of_each(self) -> None:
        load = a_load(context_size=65_536, slots=4)
        [change] = [c for c in changes(load, memory=(12 * GIB,)) if c.kind is ChangeKind.SLOTS]
        slots = change.fields["engine.parallelSlots"]
        assert change.fields["engine.contextSize"] == 16_384 * int(slots)
        assert change.estimate.slot_context_size == 16_384

    def test_experts_go_to_the_host_before_whole_layers_do(self) -> None:
        found = kinds(a_load("qwen3-30b-a3b"), 16 * GIB)
        assert found == [ChangeKind.EXPERTS, ChangeKind.LAYERS, ChangeKind.GPU]

    def test_as_few_experts_as_needed(self) -> None:
        load, memory = a_load("qwen3-30b-a3b"), 16 * GIB
        [change] = [c for c in changes(load, memory=(memory,)) if c.kind is ChangeKind.EXPERTS]
        number = int(change.fields["engine.cpuMoeLayers"])
        assert total(load, cpu_moe_layers=number) <= memory < total(load, cpu_moe_layers=number - 1)

    def test_a_dense_model_has_no_experts_to_move(self) -> None:
        assert ChangeKind.EXPERTS not in kinds(a_load(), 4 * GIB)

    def test_a_quantized_cache_is_no_advice_without_flash_attention(self) -> None:
        load = a_load(context_size=65_536, flash_attention="off")
        assert not {ChangeKind.CACHE_Q8_0, ChangeKind.CACHE_Q4_0} & set(kinds(load, 10 * GIB))

    def test_a_cache_that_is_quantized_is_not_quantized_again(self) -> None:
        load = a_load(context_size=65_536, cache_type_k="q8_0", cache_type_v="q8_0")
        assert not {ChangeKind.CACHE_Q8_0, ChangeKind.CACHE_Q4_0} & set(kinds(load, 6 * GIB))

    def test_another_gpu_is_no_advice_where_one_alone_is_used(self) -> None:
        assert ChangeKind.GPU not in kinds(a_load(split_mode="none"), 4 * GIB)

    def test_as_few_gpus_as_needed(self) -> None:
        [change] = [c for c in changes(a_load("qwen3-30b-a3b"), memory=(8 * GIB,)) if c.kind is ChangeKind.GPU]
        assert change.fields == {"gpu.count": 3}

    def test_what_only_two_changes_together_do_is_found(self) -> None:
        load = a_load(context_size=4096, slots=4, unified=False)
        memory = total(load, context_size=1024, cache_type_k="q8_0", cache_type_v="q8_0") + 10 * MIB
        for change in changes(load, memory=(memory,)):
            assert fits(change.estimate, (memory,) * 16)


class TestSettling:
    def test_what_is_not_automatic_stays(self) -> None:
        load = a_load(gpu_layers=5)
        assert settle(load, gpus=1, memory=(GIB,), layers=False, context=False) == load.settings

    def test_all_layers_and_the_largest_context_where_there_is_room(self) -> None:
        load = a_load(context_size=0)
        found = settle(load, gpus=1, memory=(12 * GIB,), layers=True, context=True)
        assert found.gpu_layers == 33
        assert found.context_size == largest_context(load, memory=(12 * GIB,))

    def test_layers_are_not_traded_for_more_than_a_modest_context(self) -> None:
        load = a_load(context_size=0)
        found = settle(load, gpus=1, memory=(4 * GIB,), layers=True, context=True)
        assert found.context_size == 4096
        assert 0 < found.gpu_layers < 33
        assert total(load, context_size=4096, gpu_layers=found.gpu_layers) <= 4 * GIB
        assert total(load, context_size=4096, gpu_layers=found.gpu_layers + 1) > 4 * GIB

    def test_a_given_context_is_kept_and_as_many_layers_as_fit_are_offloaded(self) -> None:
        found = settle(a_load(context_size=32_768), gpus=1, memory=(5 * GIB,), layers=True, context=False)
        assert found.context_size == 32_768
        assert found.gpu_layers < 33

    def test_given_layers_are_kept_and_the_context_is_the_largest_that_fits(self) -> None:
        load = a_load(context_size=0)
        memory = total(load, context_size=2048)
        found = settle(load, gpus=1, memory=(memory,), layers=False, context=True)
        assert found.context_size == 2048
        assert found.gpu_layers == ALL_LAYERS

    def test_a_gpu_that_is_far_too_small_gets_no_layer(self) -> None:
        assert settle(a_load(), gpus=1, memory=(100 * MIB,), layers=True, context=False).gpu_layers == 0

    def test_without_figures_all_layers_and_a_modest_context(self) -> None:
        found = settle(a_load(context_size=0, slots=2), gpus=1, memory=None, layers=True, context=True)
        assert (found.gpu_layers, found.context_size) == (33, 2 * 8192)

    def test_without_a_gpu_no_layers(self) -> None:
        assert settle(a_load(), gpus=0, memory=None, layers=True, context=False).gpu_layers == 0


def test_gpus_of_different_size_get_shares_by_their_memory() -> None:
    plain = MemorySettings()
    assert shared_by_memory(plain, (8, 8)) == plain
    assert shared_by_memory(plain, (8, 24)).tensor_split == (8.0, 24.0)
    assert shared_by_memory(replace(plain, tensor_split=(1.0, 1.0)), (8, 24)).tensor_split == (1.0, 1.0)


def test_a_draft_model_follows_the_context_that_is_tried() -> None:
    draft = Draft(model=gold_model("gemma-3-270m-q4_k_m"), settings=MemorySettings(context_size=512))
    load = replace(a_load("gemma3-12b"), draft=draft)
    small, large = (load.estimate(gpus=1, settings=replace(load.settings, context_size=c)) for c in (4096, 32_768))
    alone = replace(load, draft=None)
    grown = large.gpus[0].kv_cache - small.gpus[0].kv_cache
    small, large = (alone.estimate(gpus=1, settings=replace(load.settings, context_size=c)) for c in (4096, 32_768))
    assert grown > large.gpus[0].kv_cache - small.gpus[0].kv_cache


@pytest.mark.parametrize(
    ("resource", "vendor"),
    [
        ("nvidia.com/gpu", "nvidia"),
        ("nvidia.com/mig-1g.10gb", "nvidia"),
        ("amd.com/gpu", "amd"),
        ("gpu.intel.com/i915", "intel"),
        ("example.org/gpu", "org"),
    ],
)
def test_a_resource_name_tells_the_vendor(resource: str, vendor: str) -> None:
    assert vendor_of(resource) == vendor


def test_the_overhead_can_be_configured_by_vendor() -> None:
    assert overhead_of("nvidia", configured={"nvidia": 7}) == 7
    assert overhead_of("nvidia") == overhead_of("nobody") == 640 * MIB


def test_overheads_are_quantities_by_vendor() -> None:
    assert parse_overheads({"nvidia": "512Mi", "amd": "1e9", "intel": 0}) == {
        "nvidia": 512 * MIB,
        "amd": 10**9,
        "intel": 0,
    }


@pytest.mark.parametrize(
    ("vendor", "amount", "said"),
    [
        ("nvidia", "lots", "nvidia: expected what the driver takes on each GPU, such as 512Mi; found 'lots'"),
        ("nvidia", "-1Mi", "found '-1Mi'"),
        ("nvidia", "1e99", "found '1e99'"),
        ("nvidia", True, "found True"),
        ("nvidia.com/gpu", "512Mi", "nvidia.com/gpu: expected the name of a vendor in lower case, such as nvidia"),
        ("AMD", "512Mi", "AMD: expected the name of a vendor in lower case, such as amd"),
        ("", "512Mi", "expected the name of a vendor"),
    ],
)
def test_what_is_no_overhead_is_refused_by_its_vendor(vendor: str, amount: str | int, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_overheads({vendor: amount})
