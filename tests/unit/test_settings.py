"""Settings of the operator's process, and how it ends: 0 when asked to stop, 1 without the lease, 2 on bad settings."""

from __future__ import annotations

import asyncio
import sys

import pytest
from pydantic_settings import CliApp

from llamamodel_operator import __version__, main
from llamamodel_operator.shell.client import ClusterConfigError
from llamamodel_operator.shell.leader import LeaseLostError
from llamamodel_operator.shell.settings import Settings

from .builders import a_model


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)


def given(*flags: str) -> Settings:
    return CliApp.run(Settings, cli_args=list(flags))


def test_without_any_setting_the_documented_defaults_hold() -> None:
    settings = given()
    assert settings.watch_namespaces == []
    assert (settings.workers, settings.resync_interval_sec, settings.http_port) == (16, 300, 8080)
    assert settings.leader_election is True
    assert (settings.lease_namespace, settings.lease_name) == ("default", "llamamodel-operator")
    assert (settings.log_format, settings.log_level) == ("auto", "info")
    assert settings.identity


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--workers", "4"], "workers", 4),
        (["--resync-interval-sec", "30"], "resync_interval_sec", 30),
        (["--no-leader-election"], "leader_election", False),
        (["--leader-election"], "leader_election", True),
        (["--lease-name", "mine"], "lease_name", "mine"),
        (["--http-port", "0"], "http_port", 0),
        (["--log-format", "json"], "log_format", "json"),
        (["--kubeconfig", "/x"], "kubeconfig", "/x"),
        (["--watch-namespaces", "a", "--watch-namespaces", "b"], "watch_namespaces", ["a", "b"]),
        (["--watch-namespaces", "a,b"], "watch_namespaces", ["a", "b"]),
        (["--gpu-overhead", "nvidia=512Mi"], "gpu_overhead", {"nvidia": "512Mi"}),
        (["--image-by-resource", "x/y=z"], "image_by_resource", {"x/y": "z"}),
        (["--image-by-resource", '{"x/y": "img:1"}'], "image_by_resource", {"x/y": "img:1"}),
    ],
)
def test_each_setting_is_a_flag(flags: list[str], field: str, value: object) -> None:
    assert getattr(given(*flags), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("WORKERS", "4", "workers", 4),
        ("LEADER_ELECTION", "false", "leader_election", False),
        ("WATCH_NAMESPACES", '["a", "b"]', "watch_namespaces", ["a", "b"]),
        ("IMAGE_CPU", "my/image:1", "image_cpu", "my/image:1"),
        ("GPU_OVERHEAD", '{"amd": "1Gi", "intel": 0}', "gpu_overhead", {"amd": "1Gi", "intel": 0}),
        ("IMAGE_BY_RESOURCE", '{"x/y": "img:1"}', "image_by_resource", {"x/y": "img:1"}),
    ],
)
def test_each_setting_is_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"LLAMAMODEL_OPERATOR_{variable}", text)
    assert getattr(given(), field) == value


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAMODEL_OPERATOR_WORKERS", "4")
    assert given("--workers", "5").workers == 5


def test_in_a_pod_the_lease_is_in_its_namespace_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "ops")
    monkeypatch.setenv("POD_NAME", "operator-0")
    assert (given().lease_namespace, given().identity) == ("ops", "operator-0")


def test_images_are_chosen_from_the_settings() -> None:
    images = given(
        "--image-cpu", "cpu:1", "--image-gpu", "gpu:1", "--image-by-resource", "nvidia.com/gpu=cuda:1"
    ).images
    assert images.choose(a_model().build()) == "cpu:1"
    assert images.choose(a_model().with_gpu().build()) == "cuda:1"
    assert images.choose(a_model().with_gpu(resource="other.com/gpu").build()) == "gpu:1"


def test_the_default_images_are_llama_cpps_own() -> None:
    images = given().images
    for image in (images.cpu, images.gpu, *images.by_resource.values()):
        assert image.startswith("ghcr.io/ggml-org/llama.cpp:server")


# The process


def exit_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> SystemExit:
    monkeypatch.setattr(sys, "argv", ["llamamodel-operator", *flags])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value


BAD = [
    (["--workers", "0"], "--workers: Input should be greater than or equal to 1 (found '0')"),
    (
        ["--workers", "many"],
        "--workers: Input should be a valid integer, unable to parse string as an integer (found 'many')",
    ),
    (["--resync-interval-sec", "1"], "--resync-interval-sec: Input should be greater than or equal to 5 (found '1')"),
    (
        ["--gpu-overhead", "nvidia=512 MB"],
        "--gpu-overhead: Value error, nvidia: expected what the driver takes on each GPU, such as 512Mi;"
        " found '512 MB' (found {'nvidia': '512 MB'})",
    ),
    (["--http-port", "70000"], "--http-port: Input should be less than or equal to 65535 (found '70000')"),
]


@pytest.mark.parametrize(("flags", "sentence"), BAD)
def test_a_bad_value_is_explained_in_one_line_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert exit_of(monkeypatch, *flags).code == 2
    assert capsys.readouterr().err == f"llamamodel-operator: {sentence}\n"


def test_a_bad_value_in_the_environment_is_explained_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMAMODEL_OPERATOR_IMAGE_BY_RESOURCE", "not json")
    assert exit_of(monkeypatch).code == 2
    assert "image_by_resource" in capsys.readouterr().err


def test_an_unknown_flag_exits_with_2_and_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(monkeypatch, "--no-such-flag").code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["llamamodel-operator", "--version"])
    main.main()
    assert capsys.readouterr().out == f"llamamodel-operator {__version__}\n"


def test_help_explains_every_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(monkeypatch, "--help").code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("error", "code"), [(LeaseLostError("not renewed"), 1), (ClusterConfigError("no way to reach a cluster"), 2)]
)
def test_the_process_exits_with_a_code_that_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, code: int
) -> None:
    async def fail(_: Settings) -> None:
        raise error

    monkeypatch.setattr(main, "_run", fail)
    monkeypatch.setattr(main, "configure_logging", lambda **_: None)
    assert exit_of(monkeypatch).code == code
    assert str(error) in caplog.text


def test_a_port_that_is_taken_is_explained_without_a_stack_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Settings) -> None:
        raise OSError(98, "address already in use")

    monkeypatch.setattr(main, "_run", fail)
    monkeypatch.setattr(main, "configure_logging", lambda **_: None)
    assert exit_of(monkeypatch).code == 2


# The first of several


class Part:
    """Something that runs for ever unless told otherwise, and notes how it ended."""

    def __init__(self) -> None:
        self.cancelled = False

    async def runs(self) -> None:
        try:
            await asyncio.sleep(10**6)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_when_one_part_ends_the_others_are_stopped() -> None:
    part = Part()
    await main._first(part.runs(), asyncio.sleep(5))
    assert part.cancelled
    assert asyncio.get_running_loop().time() == 5


async def test_when_one_part_fails_the_others_are_stopped_and_the_failure_is_told() -> None:
    part = Part()

    async def fails() -> None:
        await asyncio.sleep(1)
        raise LeaseLostError("lost")

    with pytest.raises(LeaseLostError, match="lost"):
        await main._first(part.runs(), fails(), part.runs())
    assert part.cancelled


async def test_when_all_is_cancelled_every_part_is_stopped() -> None:
    parts = [Part(), Part()]
    running = asyncio.create_task(main._first(*(part.runs() for part in parts)))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(part.cancelled for part in parts)


async def test_a_part_that_fails_while_it_is_stopped_hides_nothing() -> None:
    async def fails_on_the_way_out() -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            raise RuntimeError("on the way out")

    await main._first(fails_on_the_way_out(), asyncio.sleep(1))
