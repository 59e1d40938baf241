"""Requests to the API server, against a small server on the loopback: paths, pages, refusals, and the fence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llamamodel_operator.shell.client import (
    DEPLOYMENTS,
    LEASES,
    MODELS,
    PODS,
    SERVICES,
    ApiError,
    ClusterClient,
    ClusterConfigError,
    Resource,
)
from llamamodel_operator.shell.leader import LeaseLostError

from .builders import a_model

real_time = pytest.mark.real_time


class Server:
    """Answers every request with `answer`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, str], Mapping[str, str], bytes]] = []
        self.answer: Callable[[web.Request], tuple[int, Any]] = lambda _: (200, {"kind": "Any"})
        self.writes: list[tuple[str, str, int]] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append((request.method, request.path, dict(request.query), dict(request.headers), body))
        status, answer = self.answer(request)
        return web.Response(status=status, body=answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def observe(self, *, kind: str, verb: str, status: int) -> None:
        self.writes.append((kind, verb, status))

    @asynccontextmanager
    async def client(self, folder: Path) -> AsyncIterator[ClusterClient]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            file = folder / "kubeconfig"
            file.write_text(json.dumps(a_kubeconfig(address)))
            async with ClusterClient.connect(kubeconfig=str(file), observe_write=self.observe) as client:
                yield client
        finally:
            await runner.cleanup()


def a_kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@pytest.fixture
def server() -> Server:
    return Server()


def refusal(status: int, reason: str, message: str) -> Callable[[web.Request], tuple[int, Any]]:
    return lambda _: (status, {"kind": "Status", "reason": reason, "message": message})


@pytest.mark.parametrize(
    ("resource", "names", "path"),
    [
        (PODS, {"namespace": None}, "/api/v1/pods"),
        (PODS, {"namespace": "demo"}, "/api/v1/namespaces/demo/pods"),
        (SERVICES, {"namespace": "demo", "name": "a"}, "/api/v1/namespaces/demo/services/a"),
        (DEPLOYMENTS, {"namespace": "demo", "name": "a"}, "/apis/apps/v1/namespaces/demo/deployments/a"),
        (
            MODELS,
            {"namespace": "demo", "name": "a", "subresource": "status"},
            "/apis/llamamodel.dev/v1alpha1/namespaces/demo/llamamodels/a/status",
        ),
    ],
)
def test_a_path_is_as_the_api_server_has_it(resource: Resource, names: dict[str, Any], path: str) -> None:
    assert resource.path(**names) == path


def test_a_resource_says_its_api_version_as_objects_do() -> None:
    for resource, child in zip((SERVICES, DEPLOYMENTS), a_model().plan().objects, strict=True):
        assert (resource.api_version, resource.kind) == (child["apiVersion"], child["kind"])
    assert MODELS.api_version == "llamamodel.dev/v1alpha1"


@real_time
async def test_a_child_is_applied_as_our_field_manager_with_our_token(server: Server, tmp_path: Path) -> None:
    async with server.client(tmp_path) as client:
        assert await client.apply(SERVICES, a_model().service()) == {"kind": "Any"}
    ((method, path, query, headers, body),) = server.asked
    assert (method, path) == ("PATCH", "/api/v1/namespaces/demo/services/gemma")
    assert query == {"fieldManager": "llamamodel-operator", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["User-Agent"].startswith("llamamodel-operator/")
    assert json.loads(body) == a_model().service()
    assert server.writes == [("Service", "apply", 200)]


@real_time
async def test_a_status_is_applied_to_the_subresource(server: Server, tmp_path: Path) -> None:
    async with server.client(tmp_path) as client:
        await client.apply(MODELS, a_model().raw(), subresource="status")
    assert server.asked[0][1].endswith("/llamamodels/gemma/status")
    assert server.writes == [("LlamaModel", "apply-status", 200)]


@real_time
async def test_what_does_not_exist_is_none(server: Server, tmp_path: Path) -> None:
    server.answer = refusal(404, "NotFound", "not found")
    async with server.client(tmp_path) as client:
        assert await client.get(SERVICES, namespace="demo", name="x") is None


@real_time
async def test_a_long_list_comes_in_pages(server: Server, tmp_path: Path) -> None:
    def page(request: web.Request) -> tuple[int, Any]:
        token = request.query.get("continue")
        if token is None:
            return 200, {"metadata": {"continue": "next"}, "items": [{"n": 1}, {"n": 2}]}
        assert token == "next"
        return 200, {"metadata": {}, "items": [{"n": 3}]}

    server.answer = page
    async with server.client(tmp_path) as client:
        pages = [items async for items in client.list(PODS, namespace="demo", label_selector="a=b", chunk_size=2)]
    assert pages == [[{"n": 1}, {"n": 2}], [{"n": 3}]]
    assert server.asked[0][2] == {"limit": "2", "labelSelector": "a=b"}
    assert server.asked[1][2] == {"limit": "2", "labelSelector": "a=b", "continue": "next"}


@real_time
@pytest.mark.parametrize(
    ("status", "transient"), [(400, False), (403, False), (409, False), (422, False), (429, True), (503, True)]
)
async def test_a_refusal_carries_status_reason_and_message(
    server: Server, tmp_path: Path, status: int, transient: bool
) -> None:
    server.answer = refusal(status, "Because", "a sentence")
    async with server.client(tmp_path) as client:
        with pytest.raises(ApiError, match="a sentence") as refused:
            await client.apply(SERVICES, a_model().service())
    error = refused.value
    assert (error.status, error.reason, error.message, error.transient) == (status, "Because", "a sentence", transient)
    assert server.writes == [("Service", "apply", status)]


@real_time
@pytest.mark.parametrize("body", [b"upstream is down", b"[]", b'"text"', b"null", b"\xff"])
async def test_a_refusal_by_something_that_is_no_api_server_is_told_as_it_is(
    server: Server, tmp_path: Path, body: bytes
) -> None:
    server.answer = lambda _: (502, body)
    async with server.client(tmp_path) as client:
        with pytest.raises(ApiError) as refused:
            await client.create(SERVICES, a_model().service())
    assert (refused.value.status, refused.value.reason) == (502, "")
    assert refused.value.message == body.decode(errors="replace")


@real_time
@pytest.mark.parametrize("status", [404, 409])
async def test_what_is_gone_or_another_one_by_now_need_not_be_deleted(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.answer = refusal(status, "", "")
    async with server.client(tmp_path) as client:
        await client.delete(SERVICES, namespace="demo", name="x", uid="u")
    assert json.loads(server.asked[0][4]) == {"preconditions": {"uid": "u"}, "propagationPolicy": "Background"}


@real_time
async def test_a_fence_stops_every_write_before_a_byte_goes_out(server: Server, tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLostError("not leading")

    async with server.client(tmp_path) as client:
        await client.get(SERVICES, namespace="demo", name="x")  # so that a connection is there to be used again
        client.fence = lost
        service = a_model().service()
        for write in (
            lambda: client.apply(SERVICES, service),
            lambda: client.apply(MODELS, a_model().raw(), subresource="status"),
            lambda: client.create(SERVICES, service),
            lambda: client.replace(SERVICES, service),
            lambda: client.delete(SERVICES, namespace="demo", name="x", uid="u"),
        ):
            with pytest.raises(LeaseLostError, match="not leading"):
                await write()
        assert [method for method, *_ in server.asked] == ["GET"]
        await client.get(SERVICES, namespace="demo", name="x")  # reading is no harm
        await client.unfenced().replace(LEASES, service)  # nor is the lease itself
    assert [method for method, *_ in server.asked] == ["GET", "GET", "PUT"]
    assert {status for kind, _, status in server.writes if kind != "Lease"} == {0}


@real_time
async def test_the_fence_is_asked_for_every_write(server: Server, tmp_path: Path) -> None:
    asked: list[int] = []
    async with server.client(tmp_path) as client:
        client.fence = lambda: asked.append(1)
        for _ in range(3):
            await client.apply(SERVICES, a_model().service())
    assert len(asked) >= 3


@real_time
async def test_a_session_for_kopf_has_our_token_and_is_its_own_to_close(server: Server, tmp_path: Path) -> None:
    async with server.client(tmp_path) as client:
        async with client.new_session() as theirs, theirs.get(f"{client.server}/api") as answer:
            assert answer.status == 200
        await client.get(SERVICES, namespace="demo", name="x")
    assert [headers["Authorization"] for _, _, _, headers, _ in server.asked] == ["Bearer secret"] * 2


@real_time
async def test_without_any_cluster_the_sentence_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterConfigError, match=r"no way to reach a cluster: in-cluster: .*; kubeconfig "):
        async with ClusterClient.connect():
            raise AssertionError("unreachable")


@real_time
async def test_a_context_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(a_kubeconfig("http://127.0.0.1:1")))
    with pytest.raises(ClusterConfigError, match="nowhere"):
        async with ClusterClient.connect(kubeconfig=str(file), context="nowhere"):
            raise AssertionError("unreachable")


@real_time
async def test_a_log_is_read_from_its_start_up_to_a_limit(server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: (200, b"first\n" + b"x" * 1_000_000)
    async with server.client(tmp_path) as client:
        text = await client.read_log(namespace="demo", name="a-1", container="inspect", limit_bytes=1000)
    assert text == b"first\n" + b"x" * 994
    ((method, path, query, _, _),) = server.asked
    assert (method, path) == ("GET", "/api/v1/namespaces/demo/pods/a-1/log")
    assert query == {"container": "inspect", "limitBytes": "1000"}


@real_time
async def test_a_log_that_is_not_there_is_an_error(server: Server, tmp_path: Path) -> None:
    server.answer = refusal(404, "NotFound", 'pods "a-1" not found')
    async with server.client(tmp_path) as client:
        with pytest.raises(ApiError, match="not found") as caught:
            await client.read_log(namespace="demo", name="a-1", container="inspect", limit_bytes=1000)
    assert caught.value.status == 404
