"""Servers that must want an API key are asked without one first, and then by the key of their namespace alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.core.objects.deployment import has_keys
from llamamodel_operator.core.observed import Proof, ServerReport
from llamamodel_operator.shell.client import DEPLOYMENTS
from llamamodel_operator.shell.pod_keys import MountedPodKeys

from .builders import a_deployment, a_model, a_pod, status_of
from .fake_cluster import FakeCluster
from .test_prober import BUILD, EXPECTED, GEMMA, a_world, says, serving
from .test_prober import World as Asked
from .test_prober import a_pod as a_running_pod
from .world import World

LOCKED = a_model().with_spec(apiKeySecretRef={"name": "llama-keys"})


async def knows(world: Asked, *, locked: bool = True, scales: tuple[float, ...] | None = None) -> ServerReport:
    """What is known of a server when it was asked."""
    for _ in range(2):
        found = world.prober.reports(GEMMA, [a_running_pod()], scales=scales, expected=EXPECTED, locked=locked)
        await world.settled()
    return found["gemma-0"]


def shown(world: Asked) -> list[tuple[str, str | None]]:
    """Requests, each with the key that it came with."""
    return [
        (asked, headers.get("authorization"))
        for asked, headers in zip(world.server.requests, world.server.headers, strict=True)
    ]


@pytest.mark.real_time
async def test_it_is_asked_without_the_key_first_and_then_with_it() -> None:
    async with a_world() as world:
        serving(world).server.key = "secret"
        world.keys = {"demo": "secret", "other": "theirs"}
        assert await knows(world) == ServerReport(build=11669, proof=Proof.ANSWERS)
        first, *others = shown(world)
        assert first == ("GET /props", None)
        assert {key for _, key in others} == {"Bearer secret"}
        assert "POST /v1/completions" in dict(others)


@pytest.mark.real_time
@pytest.mark.parametrize("status", [200, 403, 404, 500, 501])
async def test_one_that_does_not_refuse_it_is_open_and_is_shown_no_key(status: int) -> None:
    async with a_world() as world:
        serving(world).server.instead["GET /props"] = says({}, status=status)
        world.keys = {"demo": "secret"}
        report = await knows(world)
        assert report == ServerReport(
            proof=Proof.OPEN, problem=f"GET /props without a key: expected status 401, found {status}"
        )
        assert {key for _, key in shown(world)} == {None}
        world.server.key, world.server.instead = "secret", {}
        serving(world)
        await world.time_passes()
        assert (await knows(world)).proof is Proof.ANSWERS, "it is asked again"


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"other": "secret"}, "it wants an API key, and the operator has none for the namespace demo"),
        ({"demo": "wrong"}, "it does not take the API key that the operator has for the namespace demo"),
    ],
)
async def test_without_its_key_it_is_not_reached_until_there_is_one(keys: dict[str, str], problem: str) -> None:
    async with a_world() as world:
        serving(world).server.key = "secret"
        world.keys = keys
        assert await knows(world) == ServerReport(proof=Proof.LOCKED, problem=problem)
        world.keys = {"demo": "secret"}
        world.prober.keys_changed()
        await world.settled()
        assert (await knows(world)).proof is Proof.ANSWERS


@pytest.mark.real_time
async def test_what_is_known_is_not_asked_again_for_another_key() -> None:
    async with a_world() as world:
        serving(world).server.key = "secret"
        world.keys = {"demo": "secret"}
        await knows(world)
        before = len(world.server.requests)
        world.prober.keys_changed()
        await world.settled()
        assert len(world.server.requests) == before


@pytest.mark.real_time
async def test_scales_are_kept_by_the_key() -> None:
    async with a_world(scales=(0.5,)) as world:
        serving(world).server.key = "secret"
        world.keys = {"demo": "secret"}
        assert (await knows(world, scales=(1.0,))).scales == (1.0,)


@pytest.mark.real_time
async def test_a_server_that_wants_no_key_is_never_shown_one() -> None:
    async with a_world() as world:
        world.keys = {"demo": "secret"}
        assert await knows(serving(world), locked=False) == ServerReport(build=BUILD.build, proof=Proof.ANSWERS)
        assert {key for _, key in shown(world)} == {None}


# --- who is asked so, and what is said of it


async def test_whether_a_pod_must_want_a_key_follows_from_what_runs(cluster: FakeCluster) -> None:
    world = World(cluster)
    world.has_claim()
    world.has(LOCKED)
    await world.settles()
    assert world.prober.locked
    world.has(a_model().with_spec(extraArgs=["--port", "1"]).at_generation(2))
    await world.settles()
    assert has_keys(cluster.shows(DEPLOYMENTS, GEMMA)), "the new spec is held back"
    assert world.prober.locked
    world.has(a_model().at_generation(3))
    await world.settles()
    assert not world.prober.locked


def said(report: ServerReport) -> Any:
    deployment = a_deployment().of(LOCKED).rolled_out()
    return status_of(LOCKED, a_pod().ready(), deployment=deployment, servers={"gemma-0": report}).to_wire()


def test_an_open_server_is_not_ready() -> None:
    problem = "GET /props without a key: expected status 401, found 200"
    status = said(ServerReport(proof=Proof.OPEN, problem=problem))
    (ready,) = (one for one in status["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ApiKeyNotRequired")
    assert problem in ready["message"]


def test_where_the_operator_has_no_key_a_finding_says_where_to_put_it() -> None:
    status = said(ServerReport(proof=Proof.LOCKED, problem="it wants an API key"))
    (ready,) = (one for one in status["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "True"
    (finding,) = (one for one in status["findings"] if one["code"] == "ServerNotReached")
    for words in ("the entry api-keys of Secret llama-keys", "the entry demo of the Secret", "podKeys.secretName"):
        assert words in finding["suggestion"]


# --- the mounted keys


def test_keys_are_as_they_are_now_and_each_change_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str | None] = []
    keys = MountedPodKeys(str(tmp_path), on_change=lambda: told.append(keys.of("demo")))
    (tmp_path / "demo").write_text("first\n")
    (tmp_path / "other").write_text("theirs")
    keys.mounted.look()
    keys.mounted.look()
    assert told == ["first"]
    assert (keys.of("other"), keys.of("nobody")) == ("theirs", None)
    (tmp_path / "other").unlink()
    (tmp_path / "demo").write_text("second")
    keys.mounted.look()
    assert told == ["first", "second"]
    assert keys.of("other") is None


def test_what_is_no_key_changes_nothing_and_is_told_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = MountedPodKeys(str(tmp_path))
    (tmp_path / "demo").write_text("first")
    keys.mounted.look()
    (tmp_path / "demo").write_text("hun\nter2")
    (tmp_path / "other").write_text(" hun ter2")
    with caplog.at_level(logging.ERROR):
        keys.mounted.look()
    assert (keys.of("demo"), keys.of("other")) == ("first", None)
    assert [("demo" in line, "what was known of it holds" in line) for line in caplog.messages] == [
        (True, True),
        (False, False),
    ]
    assert "ter2" not in caplog.text
