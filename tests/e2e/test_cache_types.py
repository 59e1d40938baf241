"""Every pair of KV cache types on a server that runs, with every way to divide its context; and no layer on a GPU."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.conftest import Client
from support.kube import Kube, KubectlError, llama_model

pytestmark = pytest.mark.e2e

TYPES = ("f16", "q8_0", "q4_0")
CELLS = 256
"""llama.cpp rounds contexts up to a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the spec says, and what each slot then has."""

    engine: dict[str, Any]
    each: int


CONTEXTS = (
    Context(engine={"contextSize": 512, "parallelSlots": 1}, each=512),
    Context(engine={"contextSize": 1000, "parallelSlots": 1}, each=1024),
    Context(engine={"contextSize": 2048, "parallelSlots": 2}, each=1024),
    Context(engine={"contextSize": 2048, "parallelSlots": 2, "kvUnified": True}, each=2048),
    Context(engine={"contextSize": 2048, "parallelSlots": 2, "kvUnified": False}, each=1024),
    Context(engine={"contextSize": 1500, "parallelSlots": 4}, each=512),
    Context(engine={"contextSize": 1024}, each=1024),  # four slots that share it
    Context(engine={"contextSize": 1024, "parallelSlots": 4, "kvUnified": True}, each=1024),
    Context(engine={"contextSize": 256, "parallelSlots": 1}, each=256),
)
PAIRS = tuple(itertools.product(TYPES, TYPES))


def name_of(pair: tuple[str, str]) -> str:
    return f"kv-{pair[0]}-{pair[1]}".replace("_", "-")


@pytest.fixture(scope="module", autouse=True)
def models(kube: Kube) -> Iterator[None]:
    """One model of each pair, all at once: they are small, and idle once they have started."""
    for pair, context in zip(PAIRS, CONTEXTS, strict=True):
        engine = {
            **context.engine,
            "cacheTypeK": pair[0],
            "cacheTypeV": pair[1],
            "gpuLayers": 0,
            "threads": 2,
            "skipWarmup": True,
        }
        kube.apply(llama_model(name_of(pair), engine=engine))
    yield
    kube("delete", "lm", "--all")


@pytest.fixture(params=list(zip(PAIRS, CONTEXTS, strict=True)), ids=lambda case: name_of(case[0]))
def case(kube: Kube, request: pytest.FixtureRequest) -> tuple[tuple[str, str], Context]:
    """A pair and a context whose model is ready."""
    pair, context = request.param
    kube("wait", "--for=condition=Ready", f"lm/{name_of(pair)}", "--timeout=240s", timeout=250)
    return pair, context


def test_each_pair_of_types_answers_and_each_slot_has_the_context_that_the_command_line_says(
    kube: Kube, client: Client, case: tuple[tuple[str, str], Context]
) -> None:
    pair, context = case
    name = name_of(pair)
    command = kube.must_get("lm", name)["status"]["command"]
    assert (option(command, "--cache-type-k"), option(command, "--cache-type-v")) == pair
    assert option(command, "--n-gpu-layers") == "0"
    assert slot_context(command) == context.each
    (model,) = client.get(name, "/v1/models").body["data"]
    assert model["meta"]["n_ctx"] == context.each
    answer = client.post(name, "/v1/completions", prompt="The capital of France is", max_tokens=4, temperature=0).body
    assert answer["choices"][0]["text"].strip()


def test_a_quantized_v_cache_without_flash_attention_is_refused_with_the_reason(kube: Kube) -> None:
    engine = {"flashAttention": "disabled", "cacheTypeV": "q8_0"}
    with pytest.raises(KubectlError) as refused:
        kube.apply(llama_model("refused", engine=engine))
    assert "spec.engine" in str(refused.value)
    assert "a quantized cacheTypeV needs flash attention: set flashAttention to enabled or auto" in str(refused.value)


def test_a_v_cache_that_is_not_quantized_does_without_flash_attention(kube: Kube, client: Client) -> None:
    engine = {"flashAttention": "disabled", "cacheTypeK": "q8_0", "contextSize": 512, "skipWarmup": True, "threads": 2}
    kube.apply(llama_model("plain-v", engine=engine))
    kube("wait", "--for=condition=Ready", "lm/plain-v", "--timeout=120s")
    answer = client.post("plain-v", "/v1/completions", prompt="Hello", max_tokens=1)
    assert answer.status == 200, json.loads(answer.text)


def option(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def slot_context(command: list[str]) -> int:
    """Tokens of each slot, as llama.cpp divides what the command line says."""
    context, slots = int(option(command, "--ctx-size")), 1
    if "--parallel" in command and "--kv-unified" not in command:
        slots = int(option(command, "--parallel"))
    return -(-context // slots // CELLS) * CELLS
