"""What a llama-server command line says about memory: every spelling, its defaults, and what it leaves out."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamodel_operator.core.engine.arguments import check_arguments
from llamamodel_operator.core.engine.catalogue import Flag
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.plain import is_plain
from llamamodel_operator.core.engine.policy import RISKS, ArgumentPolicy
from llamamodel_operator.core.memory.arguments import Files, MemoryArguments, settings_of
from llamamodel_operator.core.memory.settings import ALL_LAYERS, MemorySettings

NEWEST = shipped_catalogues().get(11669)
DEFAULTS = MemorySettings(prompt_cache_bytes=8 << 30)
MIB = 1 << 20


def read(line: str, *, build: int = 11669, env: dict[str, str] | None = None) -> MemoryArguments:
    variables = [{"name": name, "value": value} for name, value in (env or {}).items()]
    return settings_of(shlex.split(line), catalogue=shipped_catalogues().get(build), env=variables)


def test_an_empty_command_line_has_llama_servers_own_defaults() -> None:
    found = read("")
    assert found.settings == DEFAULTS
    assert found.draft is None
    assert found.layers_auto
    assert found.context_auto
    assert found.uncounted == ()


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("-c 8192", {"context_size": 8192}),
        ("--ctx-size 8192", {"context_size": 8192}),
        ("--ctx_size 8192", {"context_size": 8192}),
        ("-c 0", {"context_size": 0}),
        ("-c 4096 -c 512", {"context_size": 512}),
        ("-np 4", {"slots": 4}),
        ("-np -1", {"slots": None}),
        ("--parallel 1", {"slots": 1}),
        ("-np 2 -kvu", {"slots": 2, "unified": True}),
        ("-np 2 --no-kv-unified", {"slots": 2, "unified": False}),
        ("-np 2 -no-kvu", {"slots": 2, "unified": False}),
        ("--kv-unified-per-slot 4096", {"context_size": 16384}),
        ("-np 2 --kv-unified-per-slot 4096", {"slots": 2, "context_size": 8192}),
        ("-c 512 --kv-unified-per-slot 4096", {"context_size": 512}),
        ("-ctk q8_0 -ctv q4_0", {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        ("-ctk Q8_0", {}),
        ("-fa on", {"flash_attention": "on"}),
        ("-fa 1", {"flash_attention": "on"}),
        ("-fa off", {"flash_attention": "off"}),
        ("-fa auto", {}),
        ("-fa -1", {}),
        ("-b 512 -ub 256", {"batch_size": 512, "micro_batch_size": 256}),
        ("--embeddings", {"embedding": True, "batch_size": 512}),
        ("--embedding -ub 1024", {"embedding": True, "batch_size": 1024, "micro_batch_size": 1024}),
        ("--embedding -b 128", {"embedding": True, "batch_size": 128}),
        ("--embeddings --pooling cls", {"embedding": True, "batch_size": 512, "pooling": "cls"}),
        ("--reranking", {"embedding": True, "batch_size": 512, "pooling": "rank"}),
        ("-ngl 10", {"gpu_layers": 10}),
        ("-ngl 0", {"gpu_layers": 0}),
        ("-ngl all", {"gpu_layers": ALL_LAYERS}),
        ("-ngl -1", {"gpu_layers": ALL_LAYERS}),
        ("-ngl -2", {"gpu_layers": ALL_LAYERS}),
        ("-ngl auto", {"gpu_layers": ALL_LAYERS}),
        ("--no-repack", {"repack": False}),
        ("-sm row", {"split_mode": "row"}),
        ("-sm none -mg 1", {"split_mode": "none", "main_gpu": 1}),
        ("-sm tensor", {"split_mode": "tensor"}),
        ("-ts 3,1", {"tensor_split": (3.0, 1.0)}),
        ("-ts 3/1", {"tensor_split": (3.0, 1.0)}),
        ("-ts 0.5,0.5", {"tensor_split": (0.5, 0.5)}),
        ("-cmoe", {"cpu_moe_layers": ALL_LAYERS}),
        ("-ncmoe 12", {"cpu_moe_layers": 12}),
        (
            "-ot exps=CPU,attn=CUDA0 -ot x=CPU",
            {"override_tensors": (("exps", "CPU"), ("attn", "CUDA0"), ("x", "CPU"))},
        ),
        ("-ncffn 2", {"override_tensors": ((r"blk\.(0|1)\.ffn_(up|down|gate)\.", "CPU"),)}),
        ("-ncffn 99999", {"override_tensors": ((r"blk\.([0-9]+)\.ffn_(up|down|gate)\.", "CPU"),)}),
        ("-nkvo", {"kv_offload": False}),
        ("--no-kv-offload --kv-offload", {}),
        ("--no-op-offload", {"op_offload": False}),
        ("--swa-full", {"swa_full": True}),
        ("-cram 1024", {"prompt_cache_bytes": 1024 * MIB}),
        ("-cram 0", {"prompt_cache_bytes": 0}),
        ("-cram -1", {"prompt_cache_bytes": 0}),
        ("--no-mmproj-offload", {"projector_offload": False}),
        ("-dev none", {"gpu_layers": 0}),
        ("-dev CUDA0,CUDA1", {}),
        ("-c 8k", {}),
        ("-c", {}),
        ("--seed 1 --temp 0.2 --port 8080 --metrics --alias a -t 8 --load-mode none --warmup --jinja", {}),
        ("--no-such-flag 1", {}),
    ],
)
def test_a_flag_changes_what_it_is_for_and_nothing_else(line: str, changed: dict[str, Any]) -> None:
    assert read(line).settings == replace(DEFAULTS, **changed)


@pytest.mark.parametrize(
    ("line", "auto"), [("", True), ("-ngl auto", True), ("-ngl -1", True), ("-ngl all", False), ("-ngl 5", False)]
)
def test_only_the_servers_own_choice_of_layers_is_automatic(line: str, auto: bool) -> None:
    assert read(line).layers_auto is auto


def test_files_are_picked_up_under_every_spelling() -> None:
    found = read("-m a.gguf -md d.gguf --mmproj p.gguf --lora x,y --lora-scaled z:0.5,C:/w:1.5")
    assert found.files == Files(model="a.gguf", draft="d.gguf", projector="p.gguf", adapters=("x", "y", "z", "C:/w"))


def test_older_builds_give_the_scale_of_an_adapter_as_a_word_of_its_own() -> None:
    assert read("--lora-scaled z 0.5", build=4291).files.adapters == ("z",)


def test_a_draft_model_shares_the_context_and_has_types_layers_and_overrides_of_its_own() -> None:
    found = read("-c 4096 -np 2 -ctk q8_0 -ngl 9 -cmoe -md d.gguf -ctkd q4_0 -ngld 3 -ncmoed 2 -otd a=CPU")
    assert found.settings.draft_tokens == 3
    assert found.draft == MemorySettings(
        context_size=4096,
        slots=2,
        cache_type_k="q4_0",
        gpu_layers=3,
        cpu_moe_layers=2,
        override_tensors=(("a", "CPU"),),
    )
    assert not found.draft_layers_auto


def test_without_a_draft_model_nothing_is_drafted() -> None:
    assert read("--spec-draft-n-max 8").settings.draft_tokens == 0
    assert read("--spec-draft-n-max 8 -md d.gguf").settings.draft_tokens == 8


def test_variables_count_and_words_win_over_them() -> None:
    env = {"LLAMA_ARG_CTX_SIZE": "1024", "LLAMA_ARG_N_PARALLEL": "2", "LLAMA_ARG_OVERRIDE_TENSOR": "a=CPU"}
    settings = read("-c 2048", env=env).settings
    assert (settings.context_size, settings.slots, settings.override_tensors) == (2048, 2, (("a", "CPU"),))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("--rpc host:50052", "--rpc"),
        ("-cram -1", "--cache-ram"),
        ("--spec-type draft-mtp", "draft-mtp"),
        ("--spec-type draft-simple", "--spec-draft-model"),
        ("--control-vector v.gguf", "control vectors"),
        ("--gpt-oss-20b-default", "--gpt-oss-20b-default"),
    ],
)
def test_what_takes_memory_and_is_not_counted_is_said(line: str, word: str) -> None:
    [sentence] = read(line).uncounted
    assert word in sentence


def test_a_speculation_with_its_draft_model_is_counted() -> None:
    assert read("--spec-type draft-simple -md d.gguf").uncounted == ()


def test_old_builds_have_their_own_defaults() -> None:
    settings = read("", build=4291).settings
    assert (settings.context_size, settings.slots, settings.unified) == (4096, 1, True)
    assert settings.flash_attention == "off"
    assert settings.prompt_cache_bytes == 0
    assert read("-fa", build=4291).settings.flash_attention == "on"


def _spelled(flag: Flag) -> list[str]:
    return [spelling for spelling in flag.spellings if spelling not in flag.negations]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("--ctx-size", ["512"]),
        ("--parallel", ["3"]),
        ("--n-gpu-layers", ["7"]),
        ("--cache-type-k", ["q8_0"]),
        ("--cpu-moe", []),
        ("--n-cpu-moe", ["3"]),
        ("--override-tensor", ["a=CPU"]),
        ("--spec-draft-ngl", ["2"]),
        ("--spec-draft-type-k", ["q8_0"]),
        ("--mmproj", ["p"]),
    ],
)
def test_all_spellings_of_a_flag_say_the_same(name: str, values: list[str]) -> None:
    flag = NEWEST.find(name)
    assert flag is not None
    said = [read(shlex.join(["-md", "d.gguf", spelling, *values])) for spelling in _spelled(flag)]
    assert all(found == said[0] for found in said)
    assert said[0] != read("-md d.gguf")


_WORDS = st.one_of(
    st.sampled_from([spelling for flag in NEWEST.flags for spelling in flag.spellings]),
    st.sampled_from(["0", "-1", "1", "all", "auto", "q8_0", "on", "a=b", "3,1", "=", ",", "1e9", "9" * 30]),
    st.text(max_size=8),
)


@given(st.lists(_WORDS, max_size=12))
def test_no_command_line_is_too_odd(words: list[str]) -> None:
    found = settings_of(words, catalogue=NEWEST).settings
    assert found.micro_batch_size >= 1
    assert found.context_size >= 0
    assert found.slots is None or found.slots >= 1
    assert all(getattr(found, field.name) is not None or field.name in _OPTIONAL for field in fields(found))


@settings(max_examples=300, deadline=None)
@given(st.lists(_WORDS, max_size=4))
def test_of_a_plain_command_line_the_checks_have_nothing_to_say(words: list[str]) -> None:
    catalogues = shipped_catalogues()
    report = check_arguments(
        words,
        (),
        match=catalogues.match(11669),
        catalogues=catalogues,
        managed={},
        typed={},
        policy=ArgumentPolicy(allow_unsafe=frozenset(RISKS)),
        mounts=(),
    )
    assert not (is_plain(words, NEWEST) and report.findings)


def test_what_people_write_is_plain() -> None:
    assert is_plain(shlex.split("-m a.gguf -c 8192 -np 1 -ts 1,1 -ctk q8_0 --lora a --lora b -fa on"), NEWEST)
    assert not is_plain(["--flash-atten", "on"], NEWEST)
    assert not is_plain(["-c", "1", "-c", "2"], NEWEST)


_OPTIONAL = ("slots", "unified", "pooling")
