"""LoRA adapters: what they do to answers, scales that change without a restart, and that outlive one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import Client, Environment, pod_of, serve, served
from support.kube import Kube, eventually, llama_model
from support.lora import write_adapter

pytestmark = pytest.mark.e2e

NAME = "adapted"


@pytest.fixture(scope="module", autouse=True)
def adapters(environment: Environment, kube: Kube) -> None:
    """Two on the volume of the claim `models`."""
    folder = environment.models_dir / "lora"
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(("sql", "poems")):
        write_adapter(folder / f"{name}.gguf", seed=seed).chmod(0o644)


def manifest(**scales: float) -> dict[str, Any]:
    listed = [
        {"name": name, "pvc": {"claimName": "models", "path": f"lora/{name}.gguf"}, "scale": scale}
        for name, scale in scales.items()
    ]
    engine = {"contextSize": 512, "parallelSlots": 1, "threads": 2, "skipWarmup": True}
    return llama_model(NAME, engine=engine, loraAdapters=listed)


@pytest.fixture(scope="module")
def base(kube: Kube, client: Client) -> str:
    """What the model says without adapters."""
    serve(kube, manifest())
    return says(client)


@pytest.fixture(scope="module")
def adapted(kube: Kube, base: str) -> Iterator[dict[str, Any]]:
    """The pod of a model with both adapters."""
    serve(kube, manifest(sql=1, poems=0))
    yield pod_of(kube, NAME)
    kube.delete("lm", NAME)


def says(client: Client) -> str:
    body = {"prompt": "The capital of France is", "max_tokens": 24, "temperature": 0, "cache_prompt": False}
    text: str = client.post(NAME, "/v1/completions", **body).body["choices"][0]["text"]
    return text


def scales_of(client: Client) -> dict[int, float]:
    return {adapter["id"]: adapter["scale"] for adapter in client.get(NAME, "/lora-adapters").body}


def wait_for_scales(kube: Kube, **scales: float) -> None:
    """Until the status says that the one pod has them."""
    expected = [
        {"name": name, "id": index, "scale": scale, "loaded": 1} for index, (name, scale) in enumerate(scales.items())
    ]

    def shown() -> bool:
        status = kube.must_get("lm", NAME)["status"]
        assert status.get("loraAdapters") == expected
        return True

    eventually(shown, within=90)


def runs_unchanged(kube: Kube, before: dict[str, Any], *, restarts: int = 0) -> bool:
    after = pod_of(kube, NAME)
    count: int = after["status"]["containerStatuses"][0]["restartCount"]
    return after["metadata"]["uid"] == before["metadata"]["uid"] and count == restarts


def test_each_adapter_changes_the_answer_and_scale_0_restores_it_without_a_restart(
    kube: Kube, client: Client, base: str, adapted: dict[str, Any]
) -> None:
    said = {}
    for sql, poems in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        kube.apply(manifest(sql=sql, poems=poems))
        wait_for_scales(kube, sql=sql, poems=poems)
        said[sql, poems] = says(client)
    assert said.pop((0.0, 0.0)) == base
    assert len({base, *said.values()}) == 3
    assert runs_unchanged(kube, adapted)


def test_scales_are_right_after_a_container_died_while_the_operator_was_away(
    environment: Environment,
    kube: Kube,
    client: Client,
    adapted: dict[str, Any],
    send_signal: Callable[..., None],
) -> None:
    kube.apply(manifest(sql=0.4, poems=0.25))
    wait_for_scales(kube, sql=0.4, poems=0.25)
    before = says(client)
    environment.scale_operator(0)
    try:
        send_signal(adapted["metadata"]["uid"], "SIGKILL", "llama-server")
        eventually(lambda: runs_unchanged(kube, adapted, restarts=1), within=60)
        kube("wait", "--for=condition=Ready", f"pod/{adapted['metadata']['name']}", "--timeout=60s")
        assert scales_of(client) == pytest.approx({0: 0.4, 1: 0.25})
        assert says(client) == before
    finally:
        environment.scale_operator(1)
    wait_for_scales(kube, sql=0.4, poems=0.25)
    served(kube, NAME)
    assert runs_unchanged(kube, adapted, restarts=1)
