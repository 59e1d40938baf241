"""Ready is honest: a server has its model, answers a request of its task, and says on what it runs."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llamamodel_operator.api.conditions import ConditionType
from llamamodel_operator.api.spec import Task
from llamamodel_operator.api.status import LlamaModelStatus
from llamamodel_operator.core.engine.buffer_log import Measured, MeasuredGpu
from llamamodel_operator.core.engine.offload_log import Offload, offload_of
from llamamodel_operator.core.engine.proof import (
    Expected,
    answer_problem,
    expected_of,
    models_problem,
    small_request,
)
from llamamodel_operator.core.gguf.model import GgufModel, Value
from llamamodel_operator.core.memory.estimate import DeviceMemory
from llamamodel_operator.core.observed import Proof, ServerReport
from llamamodel_operator.core.offload_text import offload_of_text, offload_text

from .builders import CONFIGURATION, NOON, ModelBuilder, PodBuilder, a_deployment, a_model, a_pod, at, status_of

GENERATE = Expected(name="gemma", task=Task.GENERATE)
EMBED = Expected(name="gemma", task=Task.EMBED, widths=frozenset({3}))
RERANK = Expected(name="gemma", task=Task.RERANK)


def condition(status: LlamaModelStatus, kind: ConditionType) -> tuple[str, str, str]:
    (found,) = (one for one in status.conditions if one.type == kind)
    return found.status, found.reason, found.message


def ready(status: LlamaModelStatus) -> tuple[str, str, str]:
    return condition(status, ConditionType.READY)


def offloaded(status: LlamaModelStatus) -> tuple[str, str, str]:
    return condition(status, ConditionType.OFFLOADED)


def said(report: ServerReport | None, model: ModelBuilder | None = None) -> LlamaModelStatus:
    servers = {} if report is None else {"gemma-0": report}
    return status_of(model or a_model(), a_pod().ready(), deployment=a_deployment().rolled_out(), servers=servers)


def expected(model: ModelBuilder, file: GgufModel | None = None) -> Expected:
    plan = model.plan()
    match = CONFIGURATION.catalogues.match(plan.flags)
    return expected_of(model.build(), file, words=plan.command[1:], match=match)


# --- what is asked, and what must be answered


@pytest.mark.parametrize(
    ("expected", "path"),
    [
        (GENERATE, "/v1/completions"),
        (EMBED, "/v1/embeddings"),
        (Expected(name="x", task=Task.EMBED, pooled=False), "/embedding"),
        (RERANK, "/v1/rerank"),
    ],
)
def test_the_request_is_the_smallest_of_the_models_task(expected: Expected, path: str) -> None:
    assert small_request(expected)[0] == path


def test_what_is_expected_comes_from_the_spec_and_the_file() -> None:
    model = a_model().with_spec(servedModelName="g", task="embed").with_engine(pooling="none")
    metadata: dict[str, Value] = {
        "general.architecture": "gemma3",
        "gemma3.embedding_length": 640,
        "gemma3.dense_3_feat_out": 768,
    }
    file = GgufModel(parts=(), metadata=metadata, lengths={}, tensors=())
    assert expected(model, file) == Expected(name="g", task=Task.EMBED, widths=frozenset({640, 768}), pooled=False)
    assert expected(a_model()) == GENERATE


@pytest.mark.parametrize(
    ("spec", "task", "pooled"),
    [
        ({"task": "embed"}, Task.EMBED, True),
        ({"task": "rerank"}, Task.RERANK, True),
        ({"task": "embed", "engine": {"pooling": "rank"}}, Task.RERANK, True),
        ({"extraArgs": ["--embeddings"]}, Task.EMBED, False),
        ({"extraArgs": ["--embedding", "--pooling", "mean"]}, Task.EMBED, True),
        ({"extraArgs": ["--embeddings", "--pooling", "none"]}, Task.EMBED, False),
        ({"extraArgs": ["--embeddings", "--pooling", "rank"]}, Task.RERANK, True),
        ({"extraArgs": ["--reranking"]}, Task.RERANK, True),
        ({"extraArgs": ["--rerank"]}, Task.RERANK, True),
        ({"extraArgs": ["--pooling", "rank"]}, Task.GENERATE, True),
        ({"env": [{"name": "LLAMA_ARG_EMBEDDINGS", "value": "1"}]}, Task.EMBED, False),
        ({"env": [{"name": "LLAMA_ARG_EMBEDDINGS", "value": "0"}]}, Task.GENERATE, True),
        ({"extraArgs": ["--alias", "--embeddings-are-not-meant"]}, Task.GENERATE, True),
    ],
)
@pytest.mark.parametrize("build", [4291, 11669])
def test_the_task_is_what_the_command_line_asks_for(spec: dict[str, Any], task: Task, pooled: bool, build: int) -> None:
    model = a_model().with_spec(**spec, image=f"example.com/llama:server-b{build}")
    found = expected(model)
    assert (found.task, found.pooled) == (task, pooled)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"data": [{"id": "gemma"}]}, ""),
        ({"data": [{"id": "a", "aliases": ["gemma"]}]}, ""),
        ({"data": [{"id": "qwen"}]}, "/v1/models names qwen, expected gemma"),
        ({"data": []}, "/v1/models names no model, expected gemma"),
        ({"data": ["gemma", {"aliases": None}]}, "/v1/models names None, expected gemma"),
        ([], "/v1/models names no model, expected gemma"),
        (None, "/v1/models names no model, expected gemma"),
    ],
)
def test_the_model_must_be_there_under_its_name(answer: Any, problem: str) -> None:
    assert models_problem(answer, GENERATE) == problem


@pytest.mark.parametrize(
    ("expected", "answer", "problem"),
    [
        (GENERATE, {"choices": [{"text": ""}]}, ""),
        (GENERATE, {"choices": []}, "/v1/completions gave no text"),
        (GENERATE, {"choices": [None]}, "/v1/completions gave no text"),
        (GENERATE, None, "/v1/completions gave no text"),
        (EMBED, {"data": [{"embedding": [0.1, 0, -1]}]}, ""),
        (EMBED, [{"embedding": [[0.1, 0, -1], [0, 0, 0]]}], ""),
        (EMBED, {"embedding": [0.1, 0, -1]}, ""),
        (EMBED, {}, "no vector of finite numbers"),
        (EMBED, {"data": [{"embedding": [0.1, 0]}]}, "/v1/embeddings gave a vector of 2 elements, expected 3"),
        (EMBED, {"data": [{"embedding": [0, 0.0, 0]}]}, "/v1/embeddings gave a vector of zeros alone"),
        (EMBED, {"data": [{"embedding": [0.1, math.nan, 1]}]}, "no vector of finite numbers"),
        (EMBED, {"data": [{"embedding": [0.1, None, 1]}]}, "no vector of finite numbers"),
        (EMBED, {"data": [{"embedding": []}]}, "no vector of finite numbers"),
        (EMBED, {"data": []}, "no vector of finite numbers"),
        (EMBED, "x", "no vector of finite numbers"),
        (RERANK, {"results": [{"relevance_score": -3.5}]}, ""),
        (RERANK, {"results": [{"relevance_score": math.inf}]}, "/v1/rerank gave no finite score"),
        (RERANK, {"results": [{"relevance_score": True}]}, "/v1/rerank gave no finite score"),
        (RERANK, {"results": {}}, "/v1/rerank gave no finite score"),
        (RERANK, None, "/v1/rerank gave no finite score"),
    ],
)
def test_the_answer_must_be_one_of_its_task(expected: Expected, answer: Any, problem: str) -> None:
    found = answer_problem(answer, expected)
    assert problem in found
    assert bool(found) == bool(problem)


# --- Ready


def test_a_pod_that_is_ready_is_asked_for_an_answer_before_the_model_is() -> None:
    status, reason, message = ready(said(None))
    assert (status, reason) == ("False", "Verifying")
    assert "gemma-0" in message
    assert ready(said(ServerReport(build=11669)))[1] == "Verifying"
    assert ready(said(ServerReport(proof=Proof.ANSWERS)))[0] == "True"


def test_a_server_that_answers_otherwise_is_not_ready_and_the_message_says_how() -> None:
    report = ServerReport(proof=Proof.FAILS, problem="/v1/models names qwen, expected gemma")
    status, reason, message = ready(said(report))
    assert (status, reason) == ("False", "NotAnswering")
    assert "/v1/models names qwen, expected gemma" in message
    assert "kubectl logs gemma-0" in message


def test_a_server_that_takes_a_request_and_never_answers_is_not_ready_unless_it_has_answered_before() -> None:
    report = ServerReport(proof=Proof.SILENT, problem="it took a small request and did not answer it")
    assert ready(said(report))[:2] == ("False", "NotAnswering")
    before = said(ServerReport(proof=Proof.ANSWERS))
    after = said(report, a_model().with_status(before))
    assert ready(after)[0] == "True", "it is busy with others"
    assert "ServerNotReached" not in [finding.code for finding in after.findings or ()]


@pytest.mark.parametrize(
    ("proof", "problem", "advice"),
    [
        (Proof.NOT_REACHED, "Cannot connect to host 10.0.0.1:8080", "NetworkPolicy"),
        (Proof.LOCKED, "it wants an API key", "with that of spec.apiKeySecretRef, or without one"),
    ],
)
def test_a_server_that_cannot_be_asked_is_ready_with_a_finding(proof: Proof, problem: str, advice: str) -> None:
    status = said(ServerReport(proof=proof, problem=problem))
    assert ready(status)[0] == "True"
    (finding,) = (one for one in status.findings or () if one.code == "ServerNotReached")
    assert problem in finding.message
    assert advice in (finding.suggestion or "")


def test_after_a_restart_of_the_operator_what_was_ready_stays_so_while_servers_are_asked_again() -> None:
    before = said(ServerReport(proof=Proof.ANSWERS))
    model = a_model().with_status(before)
    assert ready(status_of(model, a_pod().ready(), deployment=a_deployment().rolled_out(), servers={}))[0] == "True"
    restarted = a_pod().started_but_unready(at("12:05:00"))
    pod = replace(restarted, node="node-1", conditions=({"type": "Ready", "status": "True"},))
    later = status_of(model, pod, deployment=a_deployment().rolled_out(), servers={}, now=NOON + timedelta(minutes=10))
    assert ready(later)[1] == "Verifying", "it is another run than the one that was seen to answer"


def test_two_pods_are_both_asked() -> None:
    model, pods = a_model().with_replicas(2), (a_pod().ready(), a_pod().named("gemma-1").ready())
    deployment = a_deployment().of(model).rolled_out()
    servers = {"gemma-0": ServerReport(proof=Proof.ANSWERS)}
    status = status_of(model, *pods, deployment=deployment, servers=servers)
    assert ready(status)[1] == "Verifying"
    assert "gemma-1" in ready(status)[2]
    assert status.ready_replicas == 2


# --- Offloaded

ON_CPU = ServerReport(proof=Proof.ANSWERS, offload=Offload(on_gpu=False, line="no usable GPU found"))
ON_GPU = ServerReport(proof=Proof.ANSWERS, offload=Offload(on_gpu=True, line="found 1 CUDA devices"))
WITH_GPU = a_model().with_gpu()


def test_a_server_without_a_gpu_is_told_of_and_ready_all_the_same() -> None:
    status = said(ON_CPU, WITH_GPU)
    assert offloaded(status)[:2] == ("False", "RunsOnCPU")
    assert "no usable GPU found" in offloaded(status)[2]
    assert "spec.image" in offloaded(status)[2]
    assert ready(status)[0] == "True"


def test_who_requires_the_gpu_is_not_ready_without_it() -> None:
    strict = WITH_GPU.with_spec(requireOffload=True)
    assert ready(said(ON_CPU, strict))[:2] == ("False", "RunsOnCPU")
    assert ready(said(ON_GPU, strict))[0] == "True"
    assert ready(said(ServerReport(proof=Proof.ANSWERS), strict))[0] == "True", "nobody knows"


def test_who_requires_the_gpu_waits_for_the_log_and_nobody_else_does() -> None:
    unread = ServerReport(proof=Proof.ANSWERS, log_pending=True)
    status, reason, message = ready(said(unread, WITH_GPU.with_spec(requireOffload=True)))
    assert (status, reason) == ("False", "Verifying")
    assert "log" in message
    assert ready(said(unread, WITH_GPU))[0] == "True"


def test_what_requires_the_gpu_rolls_no_pod() -> None:
    strict = WITH_GPU.with_spec(requireOffload=True)
    assert (strict.plan().revision, strict.plan().settled_for) == (
        WITH_GPU.plan().revision,
        WITH_GPU.plan().settled_for,
    )


def test_where_no_layer_fits_nobody_has_asked_for_the_cpu() -> None:
    assert offloaded(said(ON_CPU, WITH_GPU.with_engine(gpuLayers=0)))[2].endswith("as asked")


def test_a_server_with_a_gpu_says_so() -> None:
    assert offloaded(said(ON_GPU, WITH_GPU)) == ("True", "OnGPU", "the log of the server says: found 1 CUDA devices")


@pytest.mark.parametrize(
    ("model", "report", "reason"),
    [
        (a_model(), ON_CPU, "NoGpuAskedFor"),
        (WITH_GPU.with_engine(gpuLayers=0), ON_CPU, "NoGpuAskedFor"),
        (WITH_GPU, ServerReport(proof=Proof.ANSWERS), "OffloadUnknown"),
        (WITH_GPU, None, "OffloadUnknown"),
    ],
)
def test_what_nobody_tells_is_unknown(model: ModelBuilder, report: ServerReport | None, reason: str) -> None:
    assert offloaded(said(report, model))[:2] == ("Unknown", reason)


def test_after_a_restart_of_the_operator_what_was_said_of_gpus_holds_while_logs_are_read_again() -> None:
    before = said(ON_CPU, WITH_GPU)
    assert offloaded(said(None, WITH_GPU.with_status(before)))[:2] == ("False", "RunsOnCPU")
    changed = WITH_GPU.with_engine(contextSize=512).with_status(before)
    assert offloaded(said(None, changed))[:2] == ("Unknown", "OffloadUnknown")


STRICT = WITH_GPU.with_spec(requireOffload=True)
ROTATED = ServerReport(proof=Proof.ANSWERS)
"""Of a server whose log has lost its beginning."""
LATER = NOON + timedelta(minutes=10)


def later(before: LlamaModelStatus, *pods: PodBuilder, model: ModelBuilder = STRICT) -> LlamaModelStatus:
    """The status after a restart of the operator, when the logs of these pods have lost their beginning."""
    deployment = a_deployment().of(model).rolled_out(len(pods))
    servers = {pod.name: ROTATED for pod in pods}
    return status_of(model.with_status(before), *pods, deployment=deployment, servers=servers, now=LATER)


def ready_since(time: str, name: str = "gemma-0") -> PodBuilder:
    up = a_pod().named(name).started_but_unready(time)
    return replace(up, node="node-1", conditions=({"type": "Ready", "status": "True"},))


@pytest.mark.parametrize(
    ("report", "told"), [(ON_CPU, ("False", "RunsOnCPU")), (ON_GPU, ("True", "OnGPU"))], ids=["cpu", "gpu"]
)
def test_what_was_said_of_gpus_in_this_run_holds_when_the_log_has_lost_its_beginning(
    report: ServerReport, told: tuple[str, str]
) -> None:
    before = said(report, STRICT)
    assert offloaded(before)[:2] == told
    after = later(before, a_pod().ready())
    assert (offloaded(after), ready(after)) == (offloaded(before), ready(before))
    again = later(after, a_pod().ready())
    assert again == after


@pytest.mark.parametrize("report", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
def test_what_was_said_of_gpus_in_the_run_before_is_forgotten(report: ServerReport) -> None:
    after = later(said(report, STRICT), ready_since(at("12:05:00")))
    assert offloaded(after)[:2] == ("Unknown", "OffloadUnknown")
    assert ready(after)[0] == "True", "nobody knows"


@pytest.mark.parametrize("report", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("since", [at("12:05:00"), at("12:00:00")])
def test_what_was_said_of_gpus_does_not_hold_for_a_pod_that_came_later(report: ServerReport, since: str) -> None:
    before = said(report, STRICT)
    two = STRICT.with_replicas(2)
    grown = status_of(
        two.with_status(before),
        a_pod().ready(),
        a_pod().named("gemma-1").loading_since(since),
        deployment=a_deployment().of(two).with_counts(updated=2, total=2, ready=1),
        servers={"gemma-0": report},
    )
    after = later(grown, ready_since(since, "gemma-1"))
    assert offloaded(after)[:2] == ("Unknown", "OffloadUnknown")


def test_the_cpu_of_one_pod_says_nothing_of_another() -> None:
    two = STRICT.with_replicas(2)
    pods = (a_pod().ready(), a_pod().named("gemma-1").ready())
    both = {"gemma-0": ON_GPU, "gemma-1": ON_CPU}
    before = status_of(two, *pods, deployment=a_deployment().of(two).rolled_out(2), servers=both)
    assert "gemma-1 runs on the CPU" in offloaded(before)[2]
    assert offloaded(later(before, *pods, model=two)) == offloaded(before)
    assert offloaded(later(before, pods[0]))[:2] == ("Unknown", "OffloadUnknown")


def test_a_server_whose_log_is_read_is_known_by_its_log_whatever_was_said_before() -> None:
    model = STRICT.with_status(said(ON_CPU, STRICT))
    assert offloaded(said(ON_GPU, model))[:2] == ("True", "OnGPU")
    assert ready(said(ON_GPU, model))[0] == "True"


@pytest.mark.parametrize("line", ["no usable GPU found", "x; y: z", "", "load_backend: loaded CPU backend from /a.so"])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_what_the_condition_says_is_read_back(line: str, on_gpu: bool) -> None:
    offload = Offload(on_gpu=on_gpu, line=line)
    assert offload_of_text(offload_text("gemma-0", offload), pod="gemma-0") == offload
    assert offload_of_text("the log of pod gemma-0 is being read", pod="gemma-0") is None
    assert offload_of_text("", pod="gemma-0") is None


NO_GPU = "warning: no usable GPU found, --gpu-layers option will be ignored"
CUDA = "ggml_cuda_init: found 2 CUDA devices (Total VRAM: 48241 MiB):"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("0.00.1 I srv  llama_server: listening", None),
        (NO_GPU, False),
        ("warning: no usable GPU found, --n-gpu-layers option will be ignored", False),
        (f"\x1b[33m{NO_GPU}\x1b[0m", False),
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", False),
        ("ggml_cuda_init: failed to initialize ROCm: no ROCm-capable device is detected", False),
        ("ggml_cuda_init: found 0 CUDA devices:", False),
        (CUDA, True),
        ("ggml_cuda_init: found 1 ROCm devices:", True),
        ("ggml_vulkan: Found 1 Vulkan devices:", True),
        ("ggml_vulkan: No devices found.", False),
        (f"ggml_vulkan: No devices found.\n{CUDA}", True),
        ("load_backend: loaded CPU backend from /app/libggml-cpu-haswell.so", False),
        ("load_backend: loaded RPC backend from /app/a.so\nload_backend: loaded CPU backend from /app/b.so", False),
        ("load_backend: loaded CUDA backend from /app/a.so\nload_backend: loaded CPU backend from /app/b.so", None),
        (f"all slots are idle\n{NO_GPU}", None),
        ("load_tensors: offloaded 19/19 layers to GPU", None),
    ],
)
def test_what_a_log_says_of_gpus(log: str, expected: bool | None) -> None:
    found = offload_of(log.splitlines(), measured=None)
    assert (found and found.on_gpu) == expected
    assert found is None or "\x1b" not in found.line


@pytest.mark.parametrize("weights", [0, 1])
def test_the_buffers_that_a_log_tells_of_outweigh_the_rest(weights: int) -> None:
    gpu = MeasuredGpu(name="CUDA0", memory=DeviceMemory(weights=weights, compute=1))
    found = offload_of([CUDA], measured=Measured(gpus=(gpu,), host=DeviceMemory()))
    assert found is not None
    assert found.on_gpu == bool(weights)
