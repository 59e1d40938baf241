"""`bench` against llama-servers that count as the real one does, and a cluster that makes its copies ready, or not."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.cli import bench_copy
from llamamodel_operator.cli.bench_copy import BadChangeError, changed_copy
from llamamodel_operator.cli.bench_requests import Done
from llamamodel_operator.cli.benching import Counts, Level, percentile
from llamamodel_operator.cli.live import NotReadable
from llamamodel_operator.cli.main import run

from .builders import a_model, a_pod
from .fake_api import FakeApi, FakeServer, a_fake_api

READY = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1}
ENGINE = {"image": "example.com/llama.cpp:server-b11669"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    """With the model gemma, which is ready and has one pod."""
    with a_fake_api(tmp_path) as api:
        api.has(a_model().with_status({"phase": "Ready", "conditions": [READY], "engine": ENGINE}).raw())
        api.has(a_pod().ready().raw())
        api.servers["gemma-0"] = FakeServer()
        yield api


@pytest.fixture
def bench(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(bench_copy, "_POLL_SEC", 0.01)
    monkeypatch.delenv("LLAMAMODEL_API_KEY", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        where = [] if "--url" in arguments else ["--kubeconfig", api.kubeconfig]
        code = run(["llamamodel", "bench", "gemma", *arguments, *where])
        told = capsys.readouterr()
        assert "should not happen" not in told.err, told.err
        return code, told.out, told.err

    return call


Bench = Callable[..., tuple[int, str, str]]
SMALL = ("--prompt-tokens", "20", "--generate-tokens", "5")


def test_each_level_is_measured_and_both_sides_count_the_same(api: FakeApi, bench: Bench) -> None:
    code, out, err = bench(*SMALL, "--parallel", "1,3")

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "generate: prompts of 20 tokens, 5 tokens generated, seed 1"
    assert lines[2].split("  ")[0] == "PARALLEL"
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "4"], ["3", "6"]]
    assert lines[-1] == "counts agree: yes (200 prompt tokens, 50 generated)"
    prompts = [body["prompt"] for path, body in api.servers["gemma-0"].bodies if path == "/completion"]
    assert {len(prompt) for prompt in prompts} == {20}
    assert len({tuple(prompt) for prompt in prompts}) == 11, "with the one of the warm-up"
    body = next(body for path, body in api.servers["gemma-0"].bodies if path == "/completion")
    assert (body["cache_prompt"], body["stream"], body["ignore_eos"]) == (False, True, True)


def test_the_same_seed_gives_the_same_prompts(api: FakeApi, bench: Bench) -> None:
    def prompts(*seed: str) -> list[Any]:
        api.servers["gemma-0"].bodies.clear()
        bench(*SMALL, "--parallel", "1", *seed)
        return [body for path, body in api.servers["gemma-0"].bodies if path == "/completion"]

    assert prompts() == prompts() != prompts("--seed", "2")


def test_figures_as_json(api: FakeApi, bench: Bench) -> None:
    code, out, _ = bench(*SMALL, "--parallel", "2", "--requests", "1", "-o", "json")

    told = json.loads(out)
    (model,) = told["models"]
    (level,) = model["levels"]
    assert code == 0
    assert (told["task"], told["promptTokens"], told["generateTokens"]) == ("generate", 20, 5)
    assert (model["title"], model["servers"]) == ("gemma", ["gemma-0"])
    assert (level["parallel"], level["requests"], level["countsAgree"]) == (2, 2, True)
    assert level["counted"] == level["serverCounted"] == {"prompt": 40, "generated": 10}
    assert level["firstTokenSeconds"]["p50"] <= level["firstTokenSeconds"]["p95"]


def test_pods_get_their_requests_in_turn_and_count_together(api: FakeApi, bench: Bench) -> None:
    api.has(a_pod().named("gemma-1").ready().raw(), a_pod().named("gemma-2").raw())
    api.servers["gemma-1"] = FakeServer(prompt_tokens=1000)

    code, out, _ = bench(*SMALL, "--parallel", "2", "-o", "json")

    assert code == 0
    assert json.loads(out)["models"][0]["servers"] == ["gemma-0", "gemma-1"]
    assert [len([1 for path, _ in server.bodies if path == "/completion"]) for server in api.servers.values()] == [3, 3]


def test_a_server_that_counts_otherwise_is_exit_code_1(api: FakeApi, bench: Bench) -> None:
    api.servers["gemma-0"].strangers = 2

    code, out, _ = bench(*SMALL, "--parallel", "1,2")

    assert code == 1
    assert "1 parallel: counts agree: no, the server counted +0 prompt tokens and +8 generated" in out


def test_requests_of_others_are_seen_and_excuse_it(api: FakeApi, bench: Bench) -> None:
    server = api.servers["gemma-0"]
    server.strangers, server.processing = 2, 1

    code, out, _ = bench(*SMALL, "--parallel", "1")

    assert code == 0
    assert out.endswith("+8 generated; it had requests of others too\n")


def test_metrics_that_are_off_are_no_reason_not_to_measure(api: FakeApi, bench: Bench) -> None:
    api.servers["gemma-0"].answers["/metrics"] = (501, {"error": {"message": "metrics are off"}})

    code, out, _ = bench(*SMALL, "--parallel", "1")

    assert code == 0
    assert out.endswith("counts agree: not known, metrics are off\n")


def test_a_server_that_was_restarted_meanwhile_is_not_compared(api: FakeApi, bench: Bench) -> None:
    server = api.servers["gemma-0"]
    server.generated_tokens, server.strangers = 1000, -600

    assert "not known, the counters went back: a server was restarted" in bench(*SMALL, "--parallel", "1")[1]


def test_what_ended_early_is_said(api: FakeApi, bench: Bench) -> None:
    api.servers["gemma-0"].ends_early = True

    code, out, _ = bench(*SMALL, "--parallel", "1")

    assert code == 0
    assert out.endswith("4 of 4 requests generated less than they were asked for\n")


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/tokenize", (503, {"error": {"message": "Loading model"}}), "error: Loading model"),
        ("/tokenize", (200, {"tokens": "x"}), "error: /tokenize: the answer is not a list of tokens"),
        ("/completion", (400, {"error": {"message": "too long"}}), "error: too long"),
        ("/completion", (200, "data: {}\n\n"), "error: /completion: the stream ended without its last event"),
        ("/completion", (200, 'error: {"message": "full"}\n\n'), "error: /completion: full"),
        ("/completion", (200, 'data: {"error": {"message": "full"}}\n\n'), "error: /completion: full"),
        ("/completion", (200, "data: [DONE]\n\n"), "error: the answer is not JSON"),
    ],
)
def test_a_request_that_fails_ends_it_with_what_the_server_said(
    path: str, answer: Any, said: str, api: FakeApi, bench: Bench
) -> None:
    api.servers["gemma-0"].answers[path] = answer

    assert bench(*SMALL) == (2, "", f"{said}\n")


_CLOSED = "write tcp 10.244.0.1:43210->10.244.0.64:8080: use of closed network connection"


@pytest.mark.parametrize("why", ["EOF", "http: server closed idle connection", f"readfrom tcp 10.244.0.1:4: {_CLOSED}"])
def test_a_request_that_was_not_taken_is_sent_again(why: str, api: FakeApi, bench: Bench) -> None:
    api.servers["gemma-0"].drops = 4
    api.servers["gemma-0"].dropped_as = f"error trying to reach service: {why}"

    code, out, _ = bench(*SMALL, "--parallel", "1")

    assert code == 0
    assert "counts agree: yes (80 prompt tokens, 20 generated)" in out
    api.servers["gemma-0"].drops = 100
    assert bench(*SMALL) == (2, "", f"error: error trying to reach service: {why}\n")


def test_a_context_that_is_too_small_is_said_before(api: FakeApi, bench: Bench) -> None:
    code, _, err = bench("--prompt-tokens", "4000", "--generate-tokens", "97")

    assert code == 2
    assert "a slot of gemma-0 has room for 4,096 tokens, and a prompt of 4,000 with 97 generated does not fit" in err


@pytest.mark.parametrize(("task", "path"), [("embed", "/v1/embeddings"), ("rerank", "/v1/rerank")])
def test_other_tasks_are_measured_by_their_own_endpoints(task: str, path: str, api: FakeApi, bench: Bench) -> None:
    api.has(a_model().with_spec(task=task).with_status({"phase": "Ready", "conditions": [READY]}).raw())

    code, out, _ = bench("--parallel", "1,2", "--prompt-tokens", "20")

    assert code == 0
    assert out.startswith(f"{task}: prompts of ")
    assert "REQUESTS/S" in out
    assert "counts agree: yes (160 prompt tokens, 0 generated)" in out
    assert {asked for asked, _ in api.servers["gemma-0"].bodies} == {"/tokenize", path}


def test_an_answer_without_a_count_is_refused(api: FakeApi, bench: Bench) -> None:
    api.servers["gemma-0"].answers["/v1/embeddings"] = (200, {"data": []})

    assert bench("--task", "embed")[2].startswith("error: /v1/embeddings: the answer does not say how many tokens")


def test_an_address_is_measured_without_a_cluster(api: FakeApi, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAMODEL_API_KEY", "k")
    url = f"{api.url}/api/v1/namespaces/demo/pods/gemma-0:8080/proxy/"

    code, out, _ = bench(*SMALL, "--parallel", "1", "--url", url)

    assert (code, out.splitlines()[-1]) == (0, "counts agree: yes (80 prompt tokens, 20 generated)")
    assert {headers["Authorization"] for headers in api.servers["gemma-0"].headers} == {"Bearer k"}
    assert not [path for path in api.asked if "proxy" not in path]


def test_a_model_that_does_not_answer_is_not_measured(api: FakeApi, bench: Bench) -> None:
    api.pods.clear()

    assert bench() == (1, "", "error: no pod of gemma answers: Ready; `llamamodel status gemma` tells why\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parallel", "0"), "write numbers from 1 to 1024 with commas, such as 1,2,4"),
        (("--parallel", "1,x"), "write numbers from 1 to 1024 with commas, such as 1,2,4"),
        (("--url", "localhost"), "write an address such as http://localhost:8080"),
        (("--url", "http://x", "--compare", "a=b"), "--compare makes a copy in the cluster: leave out --url"),
        (("--compare", "engine.flashAttention"), "is no change: write FIELD=VALUE, such as engine.flashAttention=off"),
        (("--compare", "replicas=2"), "replicas cannot be compared"),
        (("--compare", "engine.flashAttn=on"), "did you mean flashAttention"),
        (("--compare", "engine.batchSize=many"), "spec.engine.batchSize: "),
        (("--compare", "engine.batchSize=64", "--compare", "engine.microBatchSize=128"), "must not be larger"),
        (("--compare", "image.tag=x"), "image.tag: image has no fields"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_makes_nothing(
    arguments: tuple[str, ...], said: str, api: FakeApi, bench: Bench
) -> None:
    code, _, err = bench(*arguments)

    assert code == 2
    assert said in err
    assert api.created == []


# --- a copy


def becomes_ready(api: FakeApi, **server: Any) -> None:
    """A copy that is created is served at once."""

    def change(raw: dict[str, Any]) -> None:
        name = raw["metadata"]["name"]
        raw["status"] = {"phase": "Ready", "conditions": [READY]}
        api.has(a_pod().named(f"{name}-0").of(name).ready().raw())
        api.servers[f"{name}-0"] = FakeServer(**server)

    api.changed = change


def test_two_settings_are_measured_by_turns_and_the_copy_goes(api: FakeApi, bench: Bench) -> None:
    becomes_ready(api)

    code, out, err = bench(*SMALL, "--parallel", "1,2", "--compare", "engine.flashAttention=off")

    assert code == 0
    (copy,) = api.created
    name = copy["metadata"]["name"]
    assert name.startswith("gemma-bench-")
    assert copy["metadata"]["labels"] == {"llamamodel.dev/bench": "gemma"}
    (owner,) = copy["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("LlamaModel", "gemma", "uid-of-gemma")
    assert copy["spec"]["engine"] == {"flashAttention": "disabled"}
    assert copy["spec"]["image"] == ENGINE["image"]
    assert f"{name} is made beside gemma, with engine.flashAttention=off; until it is deleted it takes no GPU" in err
    assert list(api.models) == [("demo", "gemma")], "the copy is deleted"
    rows = [line.split()[:2] for line in out.splitlines()[3:9]]
    assert rows == [
        ["1", "gemma"],
        ["engine.flashAttention=off", "4"],
        ["ratio", rows[2][1]],
        ["2", "gemma"],
        ["engine.flashAttention=off", "4"],
        ["ratio", rows[5][1]],
    ]
    assert out.splitlines()[-2:] == [
        "gemma: counts agree: yes (160 prompt tokens, 40 generated)",
        "engine.flashAttention=off: counts agree: yes (160 prompt tokens, 40 generated)",
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {
                "phase": "Failed",
                "conditions": [{"type": "Ready", "status": "False", "reason": "OutOfMemory", "message": "x"}],
            },
            "OutOfMemory: x",
        ),
        (
            {
                "conditions": [
                    {"type": "Accepted", "status": "False", "reason": "QuotaExceeded", "message": "y"},
                    {"type": "Ready", "status": "False", "reason": "QuotaExceeded", "message": "y"},
                ]
            },
            "QuotaExceeded: y",
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]},
            "Unschedulable: 0/1 nodes (for 0 s)",
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "Loading", "message": "z"}]},
            "Loading: z (after 1",
        ),
        ({}, "the operator has not seen it (after 1 s)"),
    ],
)
def test_a_copy_that_cannot_become_ready_is_told_and_deleted(
    status: dict[str, Any], said: str, api: FakeApi, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_copy, "_PATIENCE_SEC", 0)
    api.changed = lambda raw: raw.update(status=status)

    code, out, err = bench("--compare", "engine.batchSize=512", "--timeout", "1s")

    assert (code, out) == (1, "")
    assert f"there is nothing to compare, the copy does not become ready: {said}" in err
    assert list(api.models) == [("demo", "gemma")]


def test_an_interrupt_deletes_the_copy(api: FakeApi, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        signal.raise_signal(signal.SIGTERM)
        await real_sleep(5)

    monkeypatch.setattr("asyncio.sleep", sleep)

    assert bench("--compare", "engine.batchSize=512")[0] == 130
    assert len(api.created) == 1
    assert list(api.models) == [("demo", "gemma")]


def test_a_copy_that_cannot_be_deleted_is_told_with_the_command(api: FakeApi, bench: Bench) -> None:
    becomes_ready(api, strangers=0)
    api.refusals["DELETE "] = (403, {"message": "no rights"})

    code, _, err = bench(*SMALL, "--parallel", "1", "--compare", "engine.batchSize=512")

    name = api.created[0]["metadata"]["name"]
    assert code == 0
    assert err.endswith(f"{name} is still there (no rights): kubectl delete llamamodel {name} --namespace demo\n")


def test_a_copy_that_may_not_be_made_is_one_line(api: FakeApi, bench: Bench) -> None:
    api.refusals["POST /apis/llamamodel.dev"] = (403, {"message": "no rights"})

    code, _, err = bench("--compare", "engine.batchSize=512")

    assert code == 2
    assert err.splitlines()[-1] == "error: the cluster answered 403: no rights"


@pytest.mark.parametrize(
    ("change", "engine"),
    [
        ("engine.flashAttention=on", {"flashAttention": "enabled"}),
        ("spec.engine.flashAttention=auto", {"flashAttention": "auto"}),
        ("engine.batchSize=512", {"batchSize": 512}),
        ("engine.contBatching=off", {"contBatching": False}),
        ("engine.gpuLayers=all", {"gpuLayers": "all"}),
        ("engine.gpuLayers=7", {"gpuLayers": 7}),
        ("engine.cacheTypeK=q8_0", {"cacheTypeK": "q8_0"}),
        ("engine.tensorSplit=[1, 2]", {"tensorSplit": [1, 2]}),
        ("engine.contextSize=", {}),
    ],
)
def test_a_value_has_the_type_of_its_field(change: str, engine: dict[str, Any]) -> None:
    model = a_model().with_engine(contextSize=4096).raw()

    made = changed_copy(model, [change, "extraArgs=['--top-k', '5']"])["spec"]

    assert made["engine"] == ({} if change.endswith("=") else {"contextSize": 4096, **engine})
    assert made["extraArgs"] == ["--top-k", "5"]
    assert model["spec"]["engine"] == {"contextSize": 4096}


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(BadChangeError, match="is no value: write it as in a manifest"):
        changed_copy(a_model().raw(), ["extraArgs=[a"])


# --- figures


def a_level(*times: tuple[float, float, float], tokens: int = 11) -> Level:
    done = tuple(
        Done(sent=sent, first=first, last=last, prompt_tokens=100, generated_tokens=tokens)
        for sent, first, last in times
    )
    counts = Counts(prompt=100 * len(done), generated=tokens * len(done))
    return Level(parallel=1, done=done, server_counts=counts, strangers=False)


def test_rates_are_over_the_time_in_which_somebody_waited() -> None:
    one_after_the_other = a_level((0, 1, 3), (10, 11, 13))
    side_by_side = a_level((0, 1, 3), (0, 1, 3))

    assert (one_after_the_other.prompt_rate, one_after_the_other.generation_rate) == (100, 5)
    assert (side_by_side.prompt_rate, side_by_side.generation_rate) == (200, 10)
    assert side_by_side.each_rate == 5
    assert one_after_the_other.seconds == 13
    assert a_level((0, 1, 1), tokens=1).generation_rate == 0


def test_percentiles_are_values_that_were_there() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]

    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([7.0], 0.5)) == (3.0, 5.0, 7.0)


def test_counts_that_nobody_could_read_are_neither_right_nor_wrong() -> None:
    level = a_level((0, 1, 2))

    assert level.agrees is True
    assert replace(level, server_counts=Counts(prompt=1, generated=1)).agrees is False
    assert replace(level, server_counts=NotReadable("off")).agrees is None
