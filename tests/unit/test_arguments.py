"""The arguments of llama-server: what a field means, as a flag; what is left out, left to llama-server."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .builders import a_model


def _flag(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_smallest_model_gets_a_file_a_name_an_address_and_nothing_more() -> None:
    assert a_model().arguments() == [
        "--model", "/models/models/gemma/gemma-3-270m.gguf",
        "--alias", "gemma",
        "--host", "0.0.0.0",  # noqa: S104
        "--port", "8080",
        "--n-gpu-layers", "0",
        "--cache-ram", "1024",
        "--threads-http", "260",
        "--check-tensors",
        "--metrics",
        "--slots",
        "--log-prefix", "--log-timestamps",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "flag", "argument"),
    [
        ("contextSize", 8192, "--ctx-size", "8192"),
        ("contextSize", 0, "--ctx-size", "0"),
        ("parallelSlots", 4, "--parallel", "4"),
        ("gpuLayers", "all", "--n-gpu-layers", "all"),
        ("gpuLayers", "auto", "--n-gpu-layers", "auto"),
        ("gpuLayers", 0, "--n-gpu-layers", "0"),
        ("gpuLayers", 17, "--n-gpu-layers", "17"),
        ("batchSize", 1024, "--batch-size", "1024"),
        ("microBatchSize", 256, "--ubatch-size", "256"),
        ("threads", 6, "--threads", "6"),
        ("flashAttention", "auto", "--flash-attn", "auto"),
        ("flashAttention", "enabled", "--flash-attn", "on"),
        ("flashAttention", "disabled", "--flash-attn", "off"),
        ("cacheTypeK", "q8_0", "--cache-type-k", "q8_0"),
        ("cacheTypeV", "iq4_nl", "--cache-type-v", "iq4_nl"),
    ],
)
def test_each_field_of_the_engine_becomes_its_flag(field: str, value: object, flag: str, argument: str) -> None:
    for model in (a_model(), a_model().with_gpu()):
        arguments = model.with_engine(**{field: value}).arguments()
        assert _flag(arguments, flag) == argument
        assert arguments.count(flag) == 1


def test_a_field_changes_its_own_flag_and_no_other() -> None:
    before = a_model().arguments()
    after = a_model().with_engine(contextSize=4096).arguments()
    assert [part for part in after if part not in before] == ["--ctx-size", "4096"]


def test_layers_go_to_the_gpu_where_one_is_asked_for_and_stay_off_it_where_none_is() -> None:
    assert _flag(a_model().arguments(), "--n-gpu-layers") == "0"
    assert _flag(a_model().with_gpu().arguments(), "--n-gpu-layers") == "auto"


def test_explicit_zero_layers_stay_off_the_gpu_that_was_asked_for() -> None:
    assert _flag(a_model().with_gpu().with_engine(gpuLayers=0).arguments(), "--n-gpu-layers") == "0"


@pytest.mark.parametrize(
    ("limit", "threads"),
    [("1500m", "2"), ("2", "2"), (3, "3"), ("100m", "1"), ("0", "1"), ("2000m", "2"), ("2001m", "3"), ("1k", "1000")],
)
def test_threads_are_the_cpu_limit_rounded_up(limit: str | int, threads: str) -> None:
    assert _flag(a_model().with_limits(cpu=limit).arguments(), "--threads") == threads


def test_threads_that_are_given_win_over_the_cpu_limit() -> None:
    assert _flag(a_model().with_limits(cpu="8").with_engine(threads=3).arguments(), "--threads") == "3"


def test_without_a_cpu_limit_threads_are_left_to_llama_server() -> None:
    assert "--threads" not in a_model().with_limits(memory="4Gi").arguments()
    assert "--threads" not in a_model().with_spec(resources={"requests": {"cpu": "2"}}).arguments()


def test_the_served_name_is_the_alias() -> None:
    assert _flag(a_model().with_spec(servedModelName="gpt-4o").arguments(), "--alias") == "gpt-4o"


def test_endpoints_can_be_turned_off() -> None:
    arguments = a_model().with_spec(endpoints={"metrics": False, "slots": False}).arguments()
    assert "--metrics" not in arguments
    assert "--slots" not in arguments
    assert "--no-slots" in arguments


def test_every_argument_is_text() -> None:
    model = a_model().with_gpu().with_limits(cpu=2).with_engine(gpuLayers=3, contextSize=1, cacheTypeK="f16")
    for argument in model.arguments():
        assert type(argument) is str


def test_a_reference_in_a_path_reaches_llama_server_as_it_is_written() -> None:
    path = "$(HOME)/$(X).gguf"
    arguments = a_model().reading("models", path).arguments()
    assert kubelet_expands(_flag(arguments, "--model"), HOME="/home/llama") == f"/models/models/{path}"


@given(st.text(alphabet="$()aX", min_size=1, max_size=12).filter(lambda path: not path.endswith("/")))
@example("$$(X)")
@example("a$$b")
def test_whatever_is_written_reaches_llama_server_as_it_is_written(name: str) -> None:
    arguments = a_model().with_spec(servedModelName=name).arguments()
    assert kubelet_expands(_flag(arguments, "--alias"), X="replaced", a="replaced") == name


@given(st.text(alphabet="$()aX", min_size=1, max_size=12))
@example("$$(X)")
def test_the_command_of_the_plan_is_what_runs(name: str) -> None:
    model = a_model().with_spec(servedModelName=name)
    assert model.plan().command == ("llama-server", *(kubelet_expands(part) for part in model.arguments()))
    assert _flag(list(model.plan().command), "--alias") == name


def kubelet_expands(text: str, **variables: str) -> str:
    """What the kubelet makes of an argument: k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go."""
    result, position = "", 0
    while position < len(text):
        if text[position] != "$" or position + 1 == len(text):
            result += text[position]
            position += 1
            continue
        following = text[position + 1]
        end = text.find(")", position)
        if following == "(" and end > 0:
            name = text[position + 2 : end]
            result += variables.get(name, f"$({name})")
            position = end + 1
        else:
            result += "$" if following == "$" else f"${following}"
            position += 2
    return result
