"""/healthz, /readyz and /metrics: what is wrong is said, and serving them needs nothing else to work."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from llamamodel_operator.shell.health import Check, measure_loop_lag, serve
from llamamodel_operator.shell.metrics import Metrics

real_time = pytest.mark.real_time


async def ask(path: str, *, alive: dict[str, Check], ready: dict[str, Check]) -> tuple[int, str]:
    async with (
        serve(host="127.0.0.1", port=0, registry=Metrics().registry, alive=alive, ready=ready) as port,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{port}{path}")
        return answer.status_code, answer.text


@real_time
async def test_all_is_well_is_200_with_a_line_per_check() -> None:
    checks: dict[str, Check] = {"watches": lambda: None, "workers": lambda: None}
    assert await ask("/healthz", alive=checks, ready={}) == (200, "watches: ok\nworkers: ok\n")


@real_time
async def test_a_problem_is_503_and_is_named() -> None:
    checks: dict[str, Check] = {"watches": lambda: "no news from the watches of pods", "workers": lambda: None}
    assert await ask("/healthz", alive=checks, ready={}) == (
        503,
        "watches: no news from the watches of pods\nworkers: ok\n",
    )


@real_time
async def test_health_and_readiness_are_asked_apart() -> None:
    alive: dict[str, Check] = {"workers": lambda: None}
    ready: dict[str, Check] = {"cache": lambda: "not complete"}
    assert (await ask("/healthz", alive=alive, ready=ready))[0] == 200
    assert await ask("/readyz", alive=alive, ready=ready) == (503, "cache: not complete\n")


@real_time
async def test_before_any_check_is_there_it_is_healthy() -> None:
    assert (await ask("/healthz", alive={}, ready={}))[0] == 200


@real_time
async def test_checks_that_are_added_later_are_asked() -> None:
    alive: dict[str, Check] = {}
    async with (
        serve(host="127.0.0.1", port=0, registry=CollectorRegistry(), alive=alive, ready={}) as port,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        alive["workers"] = lambda: "stalled"
        assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 503


@real_time
async def test_a_connection_is_kept_for_the_next_question_and_holds_up_no_end() -> None:
    """One that the server closed without a word would break off a scrape that has just been sent on it."""
    async with (
        asyncio.timeout(10),  # aiohttp gives connections that are in use 60 s
        httpx.AsyncClient(trust_env=False) as client,
        serve(host="127.0.0.1", port=0, registry=CollectorRegistry(), alive={}, ready={}) as port,
    ):
        first, second = [await client.get(f"http://127.0.0.1:{port}/healthz") for _ in range(2)]
        ends = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in (first, second)}
        assert len(ends) == 1


@real_time
async def test_metrics_are_in_the_format_of_prometheus() -> None:
    status, text = await ask("/metrics", alive={}, ready={})
    assert status == 200
    assert "# TYPE llamamodel_operator_reconcile_seconds histogram" in text
    assert "process_resident_memory_bytes" in text


@real_time
async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    async with serve(host="127.0.0.1", port=0, registry=CollectorRegistry(), alive={}, ready={}) as port:
        with pytest.raises(OSError, match="address already in use"):
            async with serve(host="127.0.0.1", port=port, registry=CollectorRegistry(), alive={}, ready={}):
                raise AssertionError("unreachable")


async def test_the_lag_of_the_loop_is_how_late_a_sleeper_wakes() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("lag", "lag", registry=registry)
    measuring = asyncio.create_task(measure_loop_lag(gauge, period_sec=1.0))
    await asyncio.sleep(5.5)
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)
    assert registry.get_sample_value("lag") == pytest.approx(0.0)


def test_writes_are_counted_by_kind_verb_and_status() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.observe_write(kind="Deployment", verb="apply", status=200)
    metrics.observe_write(kind="Deployment", verb="apply", status=0)
    labels = {"kind": "Deployment", "verb": "apply", "status": "200"}
    assert metrics.registry.get_sample_value("llamamodel_operator_api_writes_total", labels) == 2


def test_the_queue_and_the_phases_are_read_when_they_are_asked_for() -> None:
    metrics, phases = Metrics(), {"Ready": 1}
    depth = [3]
    metrics.watch_queue(depth=lambda: depth[0], oldest_wait=lambda: 1.5, longest_pass=lambda: 2.5)
    metrics.watch_phases(lambda: phases)
    depth[0], phases["Failed"] = 4, 2
    value = metrics.registry.get_sample_value
    assert value("llamamodel_operator_queue_depth") == 4
    assert value("llamamodel_operator_queue_oldest_wait_seconds") == 1.5
    assert value("llamamodel_operator_longest_pass_seconds") == 2.5
    assert value("llamamodel_operator_models", {"phase": "Failed"}) == 2


def test_every_metric_of_ours_has_our_prefix() -> None:
    metrics = Metrics()
    names = {family.name for family in metrics.registry.collect()}
    foreign = {name for name in names if not name.startswith("llamamodel_operator_")}
    assert all(name.startswith(("process_", "python_")) for name in foreign)
