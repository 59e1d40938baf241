"""`status`, `top` and `logs` against an API server and llama-servers that answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import click
import pytest

from llamamodel_operator.cli import observing, watching
from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.cli.live import Counters, Look, NotReadable, Rates, Slot, rates
from llamamodel_operator.cli.log_reading import shown_line
from llamamodel_operator.cli.main import run
from llamamodel_operator.cli.observing import Observation
from llamamodel_operator.cli.status_report import status_text
from llamamodel_operator.cli.terminal import shown_age, table
from llamamodel_operator.cli.watching import Screen, show_again

from .builders import a_model, a_pod, at
from .fake_api import FakeApi, FakeServer, a_fake_api

CONDITIONS = [
    {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "all objects were accepted",
        "lastTransitionTime": at("11:57:00"),
        "observedGeneration": 1,
    },
    {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "1 of 1 pods answer",
        "lastTransitionTime": at("11:58:30"),
        "observedGeneration": 1,
    },
]
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Ready",
    "replicas": 1,
    "readyReplicas": 1,
    "endpoint": "http://gemma.demo.svc:8080",
    "servedModelName": "gemma",
    "conditions": CONDITIONS,
    "command": ["llama-server", "--model", "/models/models/gemma.gguf", "--api-key", "***"],
    "model": {
        "summary": "gemma3 Q4_K_M",
        "sizeBytes": 253113024,
        "files": 1,
        "layers": 18,
        "contextLength": 32768,
        "parameters": 268098176,
        "chatTemplate": "absent",
        "digest": "d",
    },
    "memory": {
        "gpus": [
            {
                "weights": "236Mi",
                "kvCache": "60Mi",
                "compute": "40Mi",
                "overhead": "640Mi",
                "total": "976Mi",
                "available": "2Gi",
            }
        ],
        "host": {"weights": "160Mi", "total": "180Mi"},
        "fits": "True",
        "summary": "1Gi/24Gi",
        "contextSize": 4096,
        "maxContextSize": 1000000,
        "gpuLayers": 19,
        "measured": {"gpus": ["340Mi"], "host": "170Mi"},
    },
    "findings": [
        {
            "severity": "warning",
            "code": "BuildUnknown",
            "field": "spec.image",
            "message": "the tag says no build",
            "suggestion": "set spec.engine.build",
        }
    ],
    "lastFailure": {
        "reason": "CrashLoop",
        "message": "first line\nerror: invalid argument: --flash-atten",
        "exitCode": 1,
        "time": at("11:00:00"),
        "logLine": "the line that tells",
        "remedy": "take it out",
    },
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with a_fake_api(tmp_path) as api:
        yield api


@pytest.fixture
def call(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(observing, "INTERVAL_SEC", 0.02)
    monkeypatch.setattr(watching, "PERIOD_SEC", 0.01)
    for variable in ("NO_COLOR", "LLAMAMODEL_API_KEY"):
        monkeypatch.delenv(variable, raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["llamamodel", *arguments, "--kubeconfig", api.kubeconfig])
        told = capsys.readouterr()
        assert "should not happen" not in told.err, told.err
        return code, told.out, told.err

    return call


def a_ready_pod(name: str = "gemma-0", model: str = "gemma") -> dict[str, Any]:
    raw = a_pod().named(name).of(model).ready().raw()
    raw["spec"]["containers"] = [{"name": "llama-server", "image": "example.com/llama:cuda"}]
    raw["metadata"]["creationTimestamp"] = at("11:58:00")
    return raw


def ready_model(api: FakeApi, name: str = "gemma", **status: Any) -> None:
    api.has(a_model().named(name).with_status({**STATUS, **status}).raw())


# --- status


def test_the_screen_of_a_model(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api)
    api.has(a_ready_pod())
    busy = {"id": 0, "n_ctx": 2048, "is_processing": True, "n_prompt_tokens": 700, "next_token": [{"n_decoded": 9}]}
    api.servers["gemma-0"] = FakeServer(slots=[busy, {"id": 1, "n_ctx": 2048, "is_processing": False}], processing=1)

    code, out, err = call("status", "gemma")

    assert (code, err) == (0, "")
    for part in (
        "demo/gemma  Ready, 1 of 1 ready",
        "gemma3 Q4_K_M, 241.4 MiB, 1 file, 18 layers, trained with 32,768 tokens of context",
        "1 of 1 pods answer",
        "gemma-0  node-1  yes    Running  0",
        "example.com/llama:cuda",
        "GPU 0  █",
        "976.0 MiB of 2.00 GiB, 48 %",
        "estimate: host 180.0 MiB, context of 4,096 tokens, 1,000,000 would fit",
        "measured: GPU 0 340.0 MiB, host 170.0 MiB",
        "warning  spec.image: the tag says no build [BuildUnknown]",
        "         set spec.engine.build",
        "last failure: CrashLoop, exit code 1",
        "  error: invalid argument: --flash-atten",
        "  log line: the line that tells",
        "  remedy: take it out",
        "gemma-0  b11669-abc  1/2         700 of 2,048       1           0",
        "generation 0 tokens/s",
        "endpoint  http://gemma.demo.svc:8080, model gemma",
        "command   llama-server --model /models/models/gemma.gguf --api-key ***",
    ):
        assert part in out, part
    assert "\x1b" not in out


def test_the_same_as_json(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api)
    api.has(a_ready_pod())
    api.servers["gemma-0"] = FakeServer(prompt_tokens=5, generated_tokens=7)

    code, out, _ = call("status", "gemma", "-o", "json")

    told = json.loads(out)
    assert code == 0
    assert (told["ready"], told["phase"], told["conditions"]) == (True, "Ready", CONDITIONS)
    assert told["lastFailure"]["remedy"] == "take it out"
    (server,) = told["servers"]
    assert server["slots"] == [{"id": 0, "busy": False, "tokens": None, "contextSize": 4096}]
    assert (server["promptTokensTotal"], server["generatedTokensTotal"], server["notReadable"]) == (5, 7, {})
    assert told["generatedTokensPerSecond"] == 0
    assert told["pods"][0]["node"] == "node-1"


def test_what_is_not_ready_is_exit_code_1_and_an_old_truth_is_no_truth(
    api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    api.has(a_model().at_generation(2).with_status(STATUS).raw())

    code, out, _ = call("status", "gemma")

    assert code == 1
    assert "(of generation 1, now 2)" in out
    assert "no pods" in out


def test_a_model_that_the_operator_has_not_seen_is_shown(
    api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    api.has(a_model().raw())

    code, out, _ = call("status", "gemma")

    assert (code, out.splitlines()[0]) == (1, "demo/gemma  not seen by the operator yet, 0 of 1 ready")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/metrics": (501, {"error": {"message": "This server does not support metrics endpoint."}})}, "support metr"),
        ({"/metrics": (200, "hello 1\n")}, "metrics not readable: the metrics are not those of llama-server"),
        ({"/slots": (401, {"error": {"message": "Invalid API Key"}})}, "it wants an API key, in the environment varia"),
        ({"/slots": (200, "no json")}, "slots not readable: the answer is not JSON"),
        ({"/slots": (200, {"a": 1})}, "slots not readable: the answer is not a list of slots"),
        ({"/props": (200, [])}, "build not readable: the server does not say it"),
        ({"/props": (302, "elsewhere")}, "build not readable: elsewhere"),
    ],
)
def test_what_a_server_does_not_tell_is_said_and_is_no_error(
    answers: dict[str, Any], said: str, api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    ready_model(api)
    api.has(a_ready_pod())
    api.servers["gemma-0"] = FakeServer(answers=answers)

    code, out, _ = call("status", "gemma")

    assert code == 0
    assert said in out


def test_rights_that_are_missing_are_said(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api)
    api.has(a_ready_pod())
    forbidden = (403, {"kind": "Status", "message": 'pods "gemma-0:8080" is forbidden: cannot get pods/proxy'})
    api.refusals["GET /api/v1/namespaces/demo/pods/gemma-0:8080"] = forbidden

    code, out, _ = call("status", "gemma")

    assert code == 0
    assert 'slots not readable: not allowed: pods "gemma-0:8080" is forbidden: cannot get pods/proxy' in out

    api.refusals["GET /api/v1/namespaces/demo/pods"] = forbidden
    assert "pods not readable: pods" in call("status", "gemma")[1]


def test_a_pod_behind_a_proxy_that_finds_no_server(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api)
    api.has(a_ready_pod())

    assert "not readable: error trying to reach service: dial tcp" in call("status", "gemma")[1]


def test_what_others_named_does_nothing_to_a_terminal(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    evil = "\x1b]0;owned\x07\u202e\r"
    failure = {**STATUS["lastFailure"], "message": f"{evil}a\n{evil}b", "hint": evil}
    ready_model(
        api,
        phase=evil,
        lastFailure=failure,
        command=[evil],
        endpoint=evil,
        findings=[{"message": evil, "field": evil, "code": evil}],
        conditions=[{**CONDITIONS[0], "message": evil, "reason": evil, "type": evil}],
        model={"summary": evil},
    )
    pod = a_ready_pod()
    pod["spec"]["containers"][0]["image"] = evil
    api.has(pod)
    api.servers["gemma-0"] = FakeServer(answers={"/props": (200, {"build_info": evil}), "/slots": (500, evil)})

    for command in (("status", "gemma"), ("status", "gemma", "-o", "json"), ("top",), ("top", "-o", "json")):
        out = call(*command)[1]
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(out)


def test_the_api_key_of_a_server_comes_from_the_environment(
    api: FakeApi, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_model(api)
    api.has(a_ready_pod())
    server = api.servers["gemma-0"] = FakeServer()
    monkeypatch.setenv("LLAMAMODEL_API_KEY", "k")

    call("status", "gemma")

    assert {headers["X-Api-Key"] for headers in server.headers} == {"k"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_model_that_is_not_there_is_one_line(
    command: str, api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = call(command, "gemma", "-n", "other")

    assert (code, out) == (2, "")
    assert err == "error: there is no LlamaModel gemma in the namespace other: name another with --namespace\n"


def test_a_watch_shows_what_changed_and_ends_well(
    api: FakeApi, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_model(api)
    looks = 0

    async def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            ready_model(api, phase="Updating")
        if looks == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.sleep", sleep)

    code, out, _ = call("status", "gemma", "--watch")

    assert code == 0
    assert out.count("demo/gemma") == 2
    assert out.count("Updating") == 1


def test_a_terminal_is_redrawn_when_the_screen_changed_and_when_something_was_told_below_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True, raising=False)
    monkeypatch.setattr(watching, "PERIOD_SEC", 0)
    monkeypatch.setattr("click.clear", lambda: print("<cleared>"))
    screens: list[Screen | BaseException] = [
        Screen(text="age 1s", content="same"),
        Screen(text="age 1s", content="same"),
        Screen(text="age 2s", content="same"),
        TimeoutError(),
        Screen(text="age 2s", content="same"),
        KeyboardInterrupt(),
    ]

    async def look() -> Screen:
        found = screens.pop(0)
        if isinstance(found, Screen):
            return found
        raise found

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(show_again(look))

    told = capsys.readouterr()
    assert told.out.split("<cleared>\n")[1:] == ["age 1s\n", "age 2s\n", "age 2s\n"]
    assert told.err == "the cluster does not answer: TimeoutError; it is asked again\n"


SERVER_ERROR = (503, {"kind": "Status", "message": "etcd has no leader"})


@pytest.mark.parametrize("command", [("status", "gemma"), ("top",)])
def test_a_watch_goes_on_when_the_cluster_answers_with_an_error_that_will_pass(
    command: tuple[str, ...],
    api: FakeApi,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "PERIOD_SEC", 2)
    ready_model(api)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        match len(pauses):
            case 1:
                api.refusals["GET /apis/llamamodel.dev"] = SERVER_ERROR
            case 7:
                api.refusals.clear()
                ready_model(api, phase="Updating")
            case 8:
                raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.sleep", sleep)

    code, out, err = call(*command, "--watch")

    assert code == 0
    assert out.count("Updating") == 1
    assert err == "the cluster answered 503: etcd has no leader; it is asked again\n"
    assert pauses == [2, 4, 8, 16, 30, 30, 30, 2]


def test_a_watch_goes_on_when_the_cluster_is_not_there_for_a_while(
    api: FakeApi, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def models(_cluster: Cluster, *, everywhere: bool) -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        if looks == 4:
            raise KeyboardInterrupt
        if looks > 1:
            raise aiohttp.ClientConnectionError("Connection refused")
        return [a_model().with_status(STATUS).raw()]

    monkeypatch.setattr(Cluster, "models", models)

    code, out, err = call("top", "--watch", "-o", "json")

    assert code == 0
    assert len(json.loads(out)) == 1, "nothing but JSON"
    assert err == "the cluster does not answer: Connection refused; it is asked again\n"


@pytest.mark.parametrize("command", [("status", "gemma"), ("top",)])
@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "the cluster answered 401: no"), (403, "LlamaModels may not be read: no"), (404, "")],
)
def test_a_watch_ends_at_what_will_not_pass(
    command: tuple[str, ...],
    status: int,
    said: str,
    api: FakeApi,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready_model(api)
    pauses = 0

    async def sleep(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        api.refusals["GET /apis/llamamodel.dev"] = (status, {"kind": "Status", "message": "no"})
        if pauses == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.sleep", sleep)

    code, _, err = call(*command, "--watch")

    assert (code, pauses) == (2, 1)
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_a_narrow_terminal_wraps_messages_inside_of_their_column() -> None:
    model = a_model().with_status({"conditions": [{**CONDITIONS[0], "message": "word " * 40}]}).raw()
    seen = Observation(model=model, pods=(), looks=(), rates=None)

    text = status_text(seen, now=datetime(2026, 1, 1, 12, tzinfo=UTC), width=80)
    lines = click.unstyle(text).splitlines()

    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith(" ") and "word" in line]
    assert "Accepted   True    Accepted  3m     word" in "\n".join(lines)


# --- top


def test_top_shows_the_busiest_first_and_what_is_not_known_as_a_dash(
    api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    for name in ("busy", "idle", "none"):
        ready_model(api, name)
    api.has(a_ready_pod("busy-0", "busy"), a_ready_pod("busy-1", "busy"), a_ready_pod("idle-0", "idle"))

    class Busy(FakeServer):
        def metrics(self) -> str:
            self.generated_tokens += 100
            return super().metrics()

    api.servers["busy-0"] = Busy(deferred=3)
    api.servers["busy-1"] = FakeServer(answers={"/metrics": (501, {"error": {"message": "off"}})})
    api.servers["idle-0"] = FakeServer()

    code, out, _ = call("top", "-A")

    assert code == 0
    _head, *rows = [line.split() for line in out.splitlines()]
    assert [row[1] for row in rows] == ["busy", "idle", "none"]
    assert rows[0][0:4] == ["demo", "busy", "Ready", "1/1"]
    assert float(rows[0][5].replace(",", "")) > 1
    assert rows[0][6:] == ["0/2", "3", "1Gi/24Gi"]
    assert rows[1][4:] == ["0", "0", "0/1", "0", "1Gi/24Gi"]
    assert rows[2][4:] == ["-", "-", "-", "-", "1Gi/24Gi"]
    models = json.loads(call("top", "-n", "demo", "-o", "json")[1])["models"]
    assert [model["requestsDeferred"] for model in models] == [3, 0, None]
    assert models[2]["promptTokensPerSecond"] is None


def test_top_without_models(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    assert call("top") == (0, "no LlamaModels\n", "")
    assert call("top", "-A", "-n", "x")[0] == 2


def a_look(at: float, *, generated: int, slots: tuple[Slot, ...] = (), server: str = "a") -> Look:
    counters = Counters(prompt_tokens=10, generated_tokens=generated, processing=1, deferred=0)
    return Look(server=server, at=at, build="b1", slots=slots, counters=counters)


def test_tokens_of_a_request_under_way_count_before_the_counters_have_them() -> None:
    slot = Slot(number=0, busy=True, tokens=20, context_size=100, prompt_done=0, generated=5)

    assert rates(
        [a_look(1, generated=7, slots=(slot,))], [a_look(3, generated=7, slots=(replace(slot, generated=25),))]
    ) == (Rates(prompt=0, generation=10))
    done = replace(slot, busy=False, generated=0)
    assert rates([a_look(1, generated=7, slots=(slot,))], [a_look(3, generated=42, slots=(done,))]) == (
        Rates(prompt=0, generation=15)
    )


def test_a_server_that_was_restarted_or_is_new_gives_no_rate() -> None:
    assert rates([a_look(1, generated=7)], [a_look(3, generated=2)]) is None
    assert rates([a_look(1, generated=7)], [a_look(3, generated=9, server="b")]) is None
    unread = replace(a_look(1, generated=7), counters=NotReadable("off"))
    assert rates([unread], [a_look(3, generated=9)]) is None
    both = [a_look(1, generated=7), a_look(1, generated=0, server="b")]
    assert rates(both, [a_look(2, generated=1), a_look(2, generated=4, server="b")]) == Rates(prompt=0, generation=4)


# --- logs


def test_logs_of_the_newest_pod_from_the_first_line(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api)
    older = a_ready_pod("gemma-1")
    older["metadata"]["creationTimestamp"] = at("10:00:00")
    api.has(a_ready_pod(), older)
    api.logs["gemma-0", "llama-server"] = (200, b"first\nsecond \xff\nlast")
    api.logs["gemma-1", "llama-server"] = (200, b"old\n")

    code, out, err = call("logs", "gemma", "--tail", "5", "--since", "1h30m", "--previous", "--timestamps")

    assert (code, out) == (0, "first\nsecond \ufffd\nlast\n")
    assert err == "pod gemma-0 is the newest of 2: --all-pods shows all\n"
    assert call("logs", "gemma", "--all-pods")[1].splitlines() == [
        "[gemma-1] old",
        "[gemma-0] first",
        "[gemma-0] second \ufffd",
        "[gemma-0] last",
    ]


def test_a_log_is_asked_for_as_kubectl_does() -> None:
    from llamamodel_operator.cli.log_reading import LogOptions

    assert LogOptions(follow=True, previous=True, timestamps=True, tail=0, since_sec=5).query() == {
        "follow": "true",
        "previous": "true",
        "timestamps": "true",
        "tailLines": "0",
        "sinceSeconds": "5",
    }
    assert LogOptions().query() == {}


WAITING = (400, {"message": 'container "llama-server" in pod "gemma-0" is waiting to start: PodInitializing'})


def test_a_container_that_has_not_started_is_said_and_waited_for_when_followed(
    api: FakeApi, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamamodel_operator.cli.log_reading._RETRY_SEC", 0)
    ready_model(api)
    api.has(a_ready_pod())
    api.logs["gemma-0", "llama-server"] = WAITING

    code, out, err = call("logs", "gemma")
    assert (code, out) == (1, "")
    assert "is waiting to start: PodInitializing; --inspection shows the check of its files" in err

    api.logs["gemma-0", "llama-server"] = [WAITING, WAITING, (200, "there\n")]
    code, out, err = call("logs", "gemma", "-f")
    assert (code, out) == (0, "there\n")
    assert err.count("waiting to start") == 1


def test_one_log_of_several_that_cannot_be_read_hides_no_other(
    api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    ready_model(api)
    api.has(a_ready_pod(), a_ready_pod("gemma-1"))
    api.logs["gemma-1", "llama-server"] = (200, "fine\n")

    code, out, err = call("logs", "gemma", "--all-pods")

    assert (code, out, err) == (1, "[gemma-1] fine\n", "error: gemma-0: no such log\n")


def test_no_pod_is_said_with_the_phase(api: FakeApi, call: Callable[..., tuple[int, str, str]]) -> None:
    ready_model(api, phase="Suspended")

    assert call("logs", "gemma") == (1, "", "error: there is no pod of gemma: Suspended\n")


def test_the_inspection_is_the_newest_job_s_else_the_check_before_the_server(
    api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    ready_model(api)
    pod = a_ready_pod()
    api.has(pod)
    assert "the pod of the inspection is gone" in call("logs", "gemma", "--inspection")[2]

    pod["spec"]["initContainers"] = [{"name": "check-files"}]
    api.logs["gemma-0", "check-files"] = (200, "checked\n")
    assert call("logs", "gemma", "--inspection") == (0, "checked\n", "pod gemma-0, container check-files\n")

    job = {"namespace": "demo", "labels": {"llamamodel.dev/inspection-of": "gemma"}}
    for name, time in (("old", "10:00:00"), ("new", "11:00:00")):
        api.has({"kind": "Pod", "metadata": {**job, "name": name, "creationTimestamp": at(time)}})
        api.logs[name, "inspect"] = (200, f"{name}\n")
    assert call("logs", "gemma", "--inspection")[1] == "new\n"
    ended = {"containerStatuses": [{"name": "inspect", "state": {"terminated": {"exitCode": 0}}}]}
    api.has({"kind": "Pod", "metadata": {**job, "name": "old", "creationTimestamp": at("10:00:00")}, "status": ended})
    assert call("logs", "gemma", "--inspection")[1] == "old\n", "the newest says nothing yet"


def test_a_terminal_gets_colours_and_nothing_else_that_it_obeys() -> None:
    line = "\x1b[31mred\x1b[0m \x1b]0;title\x07 tab\t\u202e ü"

    assert shown_line(line, colours=True) == "\x1b[31mred\x1b[0m \\x1b]0;title\\x07 tab\t\\u202e ü"
    assert shown_line(line, colours=False).startswith("red ")


@pytest.mark.parametrize("since", ["soon", "", "10", "m", "-5m"])
def test_a_duration_that_is_none_is_refused(
    since: str, api: FakeApi, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = call("logs", "gemma", "--since", since)

    assert code == 2
    assert "is no duration: write one such as 90s, 10m or 1h30m" in err


# --- what they share


def test_ages_are_those_of_kubectl() -> None:
    assert [shown_age(seconds) for seconds in (-1, 59, 60, 3599, 3600, 86400, 864000)] == [
        "0s",
        "59s",
        "1m",
        "59m",
        "1h",
        "1d",
        "10d",
    ]


def test_painted_cells_are_as_wide_as_they_look() -> None:
    assert table(["a", "b"], [["\x1b[31mred\x1b[0m", "x"], ["green", "y"]]).splitlines()[1:] == [
        "\x1b[31mred\x1b[0m    x",
        "green  y",
    ]


def test_no_cluster_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_fake_api(tmp_path) as gone:
        pass
    for command in (["status", "x"], ["top"], ["logs", "x"]):
        assert run(["llamamodel", *command, "--kubeconfig", gone.kubeconfig]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: the cluster cannot be reached")
        assert told.count("\n") == 1
