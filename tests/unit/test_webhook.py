"""The admission webhook: what it lets through, what it refuses and in which words, and how its certificate is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.shell.certificates import CA, CERTIFICATE, KEY, renewed
from llamamodel_operator.shell.client import SECRETS, ApiError
from llamamodel_operator.shell.leader import LeaseLostError
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.store import Key
from llamamodel_operator.shell.tls import ServingTls, UnusableCertificateError
from llamamodel_operator.webhook.admission import NotAReviewError, Review, answer
from llamamodel_operator.webhook.keeper import WEBHOOK_CONFIGURATIONS, CertificateKeeper, WebhookNames
from llamamodel_operator.webhook.server import serve_reviews

from .fake_cluster import FakeCluster

real_time = pytest.mark.real_time

NAMES = WebhookNames(name="hook", namespace="llamamodel-system")
LIFE = timedelta(days=90)
NOW = datetime(2031, 5, 1, tzinfo=UTC)
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


def error(message: str = "expected a number", *, at: str = "spec.extraArgs[0]", do: str | None = None) -> Finding:
    code = FindingCode.INVALID_FLAG_VALUE
    return Finding(severity=Severity.ERROR, code=code, field=at, message=message, suggestion=do)


def warning(message: str = "no such flag", *, at: str = "spec.extraArgs[0]", do: str | None = None) -> Finding:
    code = FindingCode.UNKNOWN_FLAG
    return Finding(severity=Severity.WARNING, code=code, field=at, message=message, suggestion=do)


INFO = Finding(severity=Severity.INFO, code=FindingCode.BUILD_UNKNOWN, field="spec.image", message="some build")


def finds(*findings: Finding) -> Review:
    return lambda _: findings


def never(_: Mapping[str, Any]) -> Sequence[Finding]:
    raise AssertionError("this is not to be reviewed")


def a_model(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "gemma", "namespace": "demo"}, "spec": {"model": {"pvc": {}}, **spec}}


def a_request(**fields: Any) -> dict[str, Any]:
    return {
        "uid": "uid-1",
        "kind": {"group": "llamamodel.dev", "version": "v1alpha1", "kind": "LlamaModel"},
        "name": "gemma",
        "namespace": "demo",
        "operation": "CREATE",
        "object": a_model(),
        "oldObject": None,
        **fields,
    }


def sent(request: object) -> bytes:
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def respond(request: object, review: Review) -> dict[str, Any]:
    document = json.loads(answer(sent(request), review=review).body)
    assert document["apiVersion"] == "admission.k8s.io/v1"
    assert document["kind"] == "AdmissionReview"
    response: dict[str, Any] = document["response"]
    assert response["uid"] == "uid-1"
    return response


# --- the verdict


def test_what_has_no_findings_is_allowed() -> None:
    assert respond(a_request(), finds()) == {"uid": "uid-1", "allowed": True}


def test_an_error_refuses_with_the_field_the_reason_and_what_to_do() -> None:
    found = error("expected a number, found 'many'", do="give a number, or use spec.engine.gpuLayers: all")
    response = respond(a_request(), finds(found))
    text = "expected a number, found 'many'; give a number, or use spec.engine.gpuLayers: all"
    assert response["allowed"] is False
    assert response["status"] == {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f'LlamaModel.llamamodel.dev "gemma" is invalid: spec.extraArgs[0]: {text}',
        "details": {
            "group": "llamamodel.dev",
            "kind": "LlamaModel",
            "name": "gemma",
            "causes": [{"reason": "FieldValueInvalid", "field": "spec.extraArgs[0]", "message": text}],
        },
    }


def test_all_errors_are_named_and_warnings_come_along() -> None:
    response = respond(a_request(), finds(error("one", at="spec.a"), warning("odd"), error("two", at="spec.b"), INFO))
    assert response["status"]["message"].endswith(" is invalid: \n- spec.a: one\n- spec.b: two")
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == ["spec.a", "spec.b"]
    assert response["warnings"] == ["spec.extraArgs[0]: odd"]


def test_warnings_are_told_and_infos_are_not() -> None:
    response = respond(a_request(), finds(INFO, warning("unknown flag --flash-atten", do="did you mean --flash-attn?")))
    told = "spec.extraArgs[0]: unknown flag --flash-atten; did you mean --flash-attn?"
    assert response == {"uid": "uid-1", "allowed": True, "warnings": [told]}


def test_an_object_without_a_name_yet_is_named_by_its_beginning() -> None:
    nameless = {**a_model(), "metadata": {"generateName": "gemma-"}}
    response = respond(a_request(name="", object=nameless), finds(error()))
    assert response["status"]["details"]["name"] == "gemma-"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"operation": "DELETE", "object": None, "oldObject": a_model()}, "a deletion"),
        ({"operation": "CONNECT"}, "an operation of another kind"),
        ({"operation": "UPDATE", "subResource": "status"}, "a subresource"),
        ({"operation": "UPDATE", "object": {**a_model(), "metadata": {"deletionTimestamp": "2031-05-01T00:00:00Z"}}},
         "a finalizer that is taken from what is being deleted"),
    ],
)  # fmt: skip
def test_what_is_not_for_review_is_allowed_unseen(fields: dict[str, Any], what: str) -> None:
    assert respond(a_request(**fields), never) == {"uid": "uid-1", "allowed": True}, what


@pytest.mark.parametrize(
    "kind",
    [
        {"group": "", "version": "v1", "kind": "Pod"},
        {"group": "llamamodel.dev", "version": "v9", "kind": "LlamaModel"},
        {},
        {"group": "x" * 5000, "version": "\n", "kind": []},
    ],
)
def test_a_stranger_is_let_through_with_a_warning(kind: dict[str, Any]) -> None:
    response = respond(a_request(kind=kind), never)
    assert response["allowed"] is True
    [told] = response["warnings"]
    assert told.endswith("fix its rules")
    assert len(told) <= 256


@pytest.mark.parametrize(
    ("new", "old", "allowed"),
    [
        (a_model(extraArgs=["--bad"]), a_model(extraArgs=["--bad"]), True),
        (a_model(extraArgs=["--bad"]), a_model(), False),
        (a_model(extraArgs=["--bad"], suspend=True), a_model(extraArgs=["--bad"]), True),
        (a_model(extraArgs=["--bad"]), a_model(extraArgs=["--bad"], suspend=True, replicas=0), True),
        (a_model(extraArgs=["--bad"], replicas=3), a_model(extraArgs=["--bad"], replicas=1), True),
        (a_model(extraArgs=["--bad"], suspend=True), a_model(extraArgs=["--worse"]), False),
        (a_model(extraArgs=["--bad"]), None, False),
        (a_model(extraArgs=["--bad"]), {"spec": None}, False),
    ],
)
def test_an_update_is_refused_only_where_it_touches_what_can_be_wrong(
    new: dict[str, Any], old: dict[str, Any] | None, allowed: bool
) -> None:
    response = respond(a_request(operation="UPDATE", object=new, oldObject=old), finds(error("bad")))
    assert response["allowed"] is allowed
    assert response.get("warnings") == (["spec.extraArgs[0]: bad"] if allowed else None)


# --- the words


def test_a_long_warning_keeps_its_field_and_what_to_do() -> None:
    [told] = respond(a_request(), finds(warning("x" * 4000, do="use --flash-attn")))["warnings"]
    assert len(told) == 256
    assert told.startswith("spec.extraArgs[0]: xxx")
    assert told.endswith("x…; use --flash-attn")


def test_a_long_suggestion_leaves_room_for_what_was_found() -> None:
    [told] = respond(a_request(), finds(warning("x" * 4000, do="y" * 1000)))["warnings"]
    assert len(told) == 256
    assert "xxx" in told


def test_more_warnings_than_the_api_server_passes_on_are_counted() -> None:
    told = respond(a_request(), finds(*(warning("x" * 200, at=f"spec.env[{number}]") for number in range(100))))[
        "warnings"
    ]
    assert sum(len(line) for line in told) <= 4096
    assert told[-1] == f"and {100 - len(told) + 1} more, which the operator writes to status.findings"


def test_more_errors_than_anybody_reads_are_counted() -> None:
    response = respond(a_request(), finds(*(error("x" * 4000, at=f"spec.env[{number}]") for number in range(100))))
    message = response["status"]["message"]
    assert len(message) < 20_000
    shown = message.count("spec.env[")
    assert message.endswith(f"\n- and {100 - shown} more")
    assert len(response["status"]["details"]["causes"]) == shown


def test_nothing_reaches_a_terminal_that_it_would_obey() -> None:
    found = "line 1\nline 2\x1b[31m\x00\u202e?"
    response = respond(a_request(), finds(error(found), warning(found)))
    assert response["warnings"] == ["spec.extraArgs[0]: line 1 line 2 [31m ?"]
    assert response["status"]["details"]["causes"][0]["message"] == "line 1\nline 2 [31m  ?"


# --- what is no review


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"null", "expected an AdmissionReview, found nothing"),
        (b"[]", "found a list"),
        (b"1", "found a number"),
        (b'{"kind": "Pod"}', "found kind 'Pod'"),
        (b'{"kind": "AdmissionReview"}', "expected an AdmissionReview of admission.k8s.io/v1, found None"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "set admissionReviewVersions: [v1]"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "request: expected an object"),
        (sent([]), "request: expected an object, found a list"),
        (sent({}), "request.uid: expected a string, found nothing"),
        (sent(a_request(uid=7)), "request.uid: expected a string, found a number"),
        (sent(a_request(kind="LlamaModel")), "request.kind: expected group, version and kind, found a string"),
        (sent(a_request(object=None)), "request.object: expected a LlamaModel, found nothing"),
        (sent(a_request(object="x")), "request.object: expected a LlamaModel, found a string"),
    ],
)
def test_what_is_no_review_is_answered_by_what_was_expected(body: bytes, said: str) -> None:
    with pytest.raises(NotAReviewError) as raised:
        answer(body, review=finds())
    assert said in str(raised.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "uid": st.just("uid-1") | _JSON,
        "kind": st.just(a_request()["kind"]) | _JSON,
        "operation": st.sampled_from(["CREATE", "UPDATE", "DELETE"]) | _JSON,
        "name": _JSON,
        "subResource": _JSON,
        "object": st.fixed_dictionaries({}, optional={"spec": _JSON, "metadata": _JSON}) | _JSON,
        "oldObject": st.fixed_dictionaries({}, optional={"spec": _JSON, "metadata": _JSON}) | _JSON,
    },
)


@given(_REQUESTS)
def test_any_request_is_answered_or_called_what_it_is(request: dict[str, Any]) -> None:
    try:
        document = json.loads(answer(sent(request), review=finds(error(), warning())).body)
    except NotAReviewError:
        return
    assert isinstance(document["response"]["allowed"], bool)


_TEXTS = st.text(max_size=300)


@given(st.lists(st.builds(warning, _TEXTS, at=_TEXTS, do=st.none() | _TEXTS), max_size=30))
def test_any_warnings_fit_into_headers(findings: list[Finding]) -> None:
    told = respond(a_request(), finds(*findings)).get("warnings", [])
    assert all(len(line) <= 256 and line.isprintable() for line in told)
    assert sum(map(len, told)) <= 4096


# --- the server


def files(*, at: datetime = LONG_AGO) -> Mapping[str, bytes]:
    made = renewed({}, names=NAMES.dns, now=at, life=LIFE, published=None)
    assert made is not None
    return made.data


@dataclass
class Served:
    """A server under test."""

    port: int
    tls: ServingTls
    authority: bytes
    metrics: Metrics

    def client(self, *, authority: bytes = b"") -> httpx.AsyncClient:
        trust = ssl.create_default_context(cadata=(authority or self.authority).decode())
        return httpx.AsyncClient(base_url=f"https://localhost:{self.port}", verify=trust, trust_env=False, timeout=30)

    def reviews(self, result: str) -> float:
        labels = {"result": result}
        return self.metrics.registry.get_sample_value("llamamodel_operator_webhook_reviews_total", labels) or 0


@asynccontextmanager
async def served(review: Review = lambda _: (), *, linger_sec: float = 0) -> AsyncIterator[Served]:
    tls, made, metrics = ServingTls(), files(), Metrics()
    tls.load(certificate=made[CERTIFICATE], key=made[KEY])
    async with serve_reviews(
        host="127.0.0.1", port=0, tls=tls, review=review, metrics=metrics, linger_sec=linger_sec
    ) as port:
        yield Served(port, tls, made[CA], metrics)


@real_time
async def test_a_review_is_answered_over_tls_and_counted() -> None:
    async with served(finds(error())) as server, server.client() as client:
        response = await client.post("/validate?timeout=5s", content=sent(a_request()))
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"
        assert response.json()["response"]["allowed"] is False
        assert server.reviews("refused") == 1
        assert server.metrics.registry.get_sample_value("llamamodel_operator_webhook_review_seconds_count") == 1


@real_time
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/validate", 400), ("GET", "/validate", 405), ("POST", "/", 404), ("GET", "/metrics", 404)],
)
async def test_other_requests_are_refused(method: str, path: str, status: int) -> None:
    async with served(never) as server, server.client() as client:
        assert (await client.request(method, path, content=b"?")).status_code == status


@real_time
async def test_what_is_too_large_is_refused() -> None:
    async with served(never) as server, server.client() as client:
        response = await client.post("/validate", content=b" " * 4_000_000)
        assert (response.status_code, server.reviews("malformed")) == (413, 1)
        assert "expected at most" in response.text


@real_time
async def test_two_objects_as_large_as_etcd_takes_them_are_reviewed() -> None:
    large = a_model(systemPrompt={"inline": "x" * 1_500_000})
    async with served() as server, server.client() as client:
        request = a_request(operation="UPDATE", object=large, oldObject=large)
        assert (await client.post("/validate", content=sent(request))).json()["response"]["allowed"] is True


@real_time
async def test_a_bug_in_a_check_is_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Mapping[str, Any]) -> Sequence[Finding]:
        raise KeyError("internals")

    async with served(broken) as server, server.client() as client:
        response = await client.post("/validate", content=sent(a_request()))
        assert response.status_code == 500
        assert "internals" not in response.text
        assert "Traceback" not in response.text
        assert server.reviews("failed") == 1
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "a review failed; this is a bug of the operator, please report it"
    ]


@real_time
async def test_a_slow_review_holds_up_no_other() -> None:
    others = threading.Event()

    def review(raw: Mapping[str, Any]) -> Sequence[Finding]:
        if raw["metadata"]["name"] == "slow":
            assert others.wait(30)
        return ()

    async with served(review) as server, server.client() as client:
        slow = asyncio.create_task(
            client.post("/validate", content=sent(a_request(object={"metadata": {"name": "slow"}})))
        )
        while not slow.done() and server.reviews("allowed") < 5:
            assert (await client.post("/validate", content=sent(a_request()))).status_code == 200
        assert not slow.done()
        others.set()
        assert (await slow).status_code == 200


@real_time
async def test_clients_that_talk_nonsense_or_vanish_disturb_nobody_and_fill_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as server, server.client() as client:
        trust = ssl.create_default_context(cadata=server.authority.decode())
        for said in (
            b"",
            b"\x00\x01\x02\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
            b"POST /validate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trust, server_hostname="localhost")
            writer.write(said)
            await writer.drain()
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # no TLS at all
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        assert (await client.post("/validate", content=sent(a_request()))).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@real_time
async def test_a_new_certificate_is_for_new_connections_and_the_open_ones_go_on() -> None:
    async with served() as server, server.client() as old:
        assert (await old.post("/validate", content=sent(a_request()))).status_code == 200
        other = files()
        assert server.tls.load(certificate=other[CERTIFICATE], key=other[KEY])
        async with server.client(authority=other[CA]) as new:
            assert (await new.post("/validate", content=sent(a_request()))).status_code == 200
        assert (await old.post("/validate", content=sent(a_request()))).status_code == 200, "on its open connection"
        async with server.client() as late:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await late.post("/validate", content=sent(a_request()))


@real_time
async def test_without_a_certificate_the_handshake_fails_and_nothing_else() -> None:
    async with (
        serve_reviews(
            host="127.0.0.1", port=0, tls=ServingTls(), review=never, metrics=Metrics(), linger_sec=0
        ) as port,
        httpx.AsyncClient(verify=False, trust_env=False) as client,  # noqa: S501
    ):
        with pytest.raises(httpx.ConnectError):
            await client.post(f"https://localhost:{port}/validate")


@real_time
async def test_while_it_ends_it_answers_and_sends_the_next_request_elsewhere() -> None:
    async with asyncio.TaskGroup() as tasks:
        ending = asyncio.Event()

        async def live(ready: asyncio.Future[Served]) -> None:
            async with served(linger_sec=2) as server:
                ready.set_result(server)
                await ending.wait()

        ready: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        tasks.create_task(live(ready))
        server = await ready
        async with server.client() as client:
            before = await client.post("/validate", content=sent(a_request()))
            ending.set()
            await asyncio.sleep(0.05)
            after = await client.post("/validate", content=sent(a_request()))
        assert (before.status_code, after.status_code) == (200, 200)
        assert after.headers["Connection"] == "close"


@pytest.mark.parametrize("wrong", ["cut", "another's", "text", "nothing"])
def test_garbage_is_not_loaded_and_what_was_there_stays(wrong: str) -> None:
    tls, good, other = ServingTls(), files(), files()
    tls.load(certificate=good[CERTIFICATE], key=good[KEY])
    key = {"cut": good[KEY][:100], "another's": other[KEY], "text": b"key", "nothing": b""}[wrong]
    with pytest.raises(UnusableCertificateError):
        tls.load(certificate=other[CERTIFICATE] if wrong == "cut" else good[CERTIFICATE], key=key)
    assert tls.loaded
    assert not tls.load(certificate=good[CERTIFICATE], key=good[KEY]), "it is the one that is loaded"


def test_an_encrypted_key_asks_nobody_for_its_password() -> None:
    made = files()
    key = load_pem_private_key(made[KEY], password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(UnusableCertificateError):
        ServingTls().load(certificate=made[CERTIFICATE], key=locked)


# --- the certificate's keeper

SECRET = Key(NAMES.namespace, NAMES.name)
FORBIDDEN = ApiError(status=403, reason="Forbidden", message="secrets is forbidden")


@dataclass
class Replica:
    """One replica's keeper, on a clock that the test moves."""

    cluster: FakeCluster
    leads: bool = True
    makes: bool = True
    now: datetime = NOW
    tls: ServingTls = field(default_factory=ServingTls)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.keeper = CertificateKeeper(
            client=self.cluster,
            names=NAMES,
            tls=self.tls,
            metrics=self.metrics,
            makes=self.makes,
            life=LIFE,
            leading=lambda: self.leads,
            now=lambda: self.now,
        )

    async def look(self) -> list[str]:
        """What it wrote."""
        self.cluster.forget_writes()
        await self.keeper.look()
        return [f"{write.verb} {write.kind}" for write in self.cluster.writes]

    async def run_for(self, seconds: float) -> None:
        running = asyncio.create_task(self.keeper.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def failures(self, step: str) -> float:
        name = "llamamodel_operator_webhook_certificate_failures_total"
        return self.metrics.registry.get_sample_value(name, {"step": step}) or 0


class ClusterWithWebhook(FakeCluster):
    """Knows cluster-wide objects as well, and merges what is applied to a configuration."""

    def __init__(self, *, configured: bool = True) -> None:
        super().__init__()
        if configured:
            webhook = {"name": "validate.llamamodel.dev", "clientConfig": {"service": {"name": NAMES.name}}}
            self.configuration: dict[str, Any] | None = {
                "metadata": {"name": NAMES.name, "uid": "uid-c"},
                "webhooks": [webhook],
            }
        else:
            self.configuration = None

    async def get(self, resource: Any, *, namespace: str | None, name: str) -> dict[str, Any] | None:
        if resource is not WEBHOOK_CONFIGURATIONS:
            return await super().get(resource, namespace=namespace, name=name)
        self.before_read(resource.kind)
        return self.configuration

    async def apply(self, resource: Any, body: Mapping[str, Any], *, subresource: str | None = None) -> dict[str, Any]:
        assert self.configuration is not None
        self._note("apply", resource, body)
        [ours] = body["webhooks"]
        [webhook] = self.configuration["webhooks"]
        assert ours["name"] == webhook["name"]
        webhook["clientConfig"].update(ours["clientConfig"])
        return self.configuration

    @property
    def secret(self) -> Mapping[str, bytes]:
        return {name: b64decode(content) for name, content in self.shows(SECRETS, SECRET)["data"].items()}

    @property
    def published(self) -> bytes:
        assert self.configuration is not None
        return b64decode(self.configuration["webhooks"][0]["clientConfig"].get("caBundle", ""))

    def holds(self, data: Mapping[str, bytes], **fields: Any) -> None:
        encoded = {name: b64encode(content).decode() for name, content in data.items()}
        metadata = {"namespace": SECRET.namespace, "name": SECRET.name, **fields.pop("metadata", {})}
        self.has(SECRETS, {"metadata": metadata, "data": encoded, **fields})


async def test_the_leader_makes_the_secret_shows_it_and_publishes_its_authority_once() -> None:
    cluster = ClusterWithWebhook()
    leader = Replica(cluster)
    assert leader.keeper.check() == "no certificate yet; the Secret was not read so far"
    assert await leader.look() == ["create Secret", "apply ValidatingWebhookConfiguration"]
    assert leader.keeper.check() is None
    assert cluster.published == cluster.secret[CA]
    assert cluster.shows(SECRETS, SECRET)["type"] == "kubernetes.io/tls"
    assert await leader.look() == []
    expiry = leader.metrics.registry.get_sample_value(
        "llamamodel_operator_webhook_certificate_expiry_timestamp_seconds"
    )
    assert expiry == (NOW + LIFE).timestamp()


async def test_what_is_published_owns_nothing_but_the_authority() -> None:
    cluster = ClusterWithWebhook()
    await Replica(cluster).look()
    applied = cluster.bodies[-1]
    bundle = b64encode(cluster.secret[CA]).decode()
    assert applied["metadata"] == {"name": "hook", "uid": "uid-c"}
    assert applied["webhooks"] == [{"name": "validate.llamamodel.dev", "clientConfig": {"caBundle": bundle}}]


async def test_others_show_what_the_leader_made_and_write_nothing() -> None:
    cluster = ClusterWithWebhook()
    await Replica(cluster).look()
    standby = Replica(cluster, leads=False)
    assert await standby.look() == []
    assert standby.keeper.check() is None


async def test_where_there_is_nothing_yet_one_that_stands_by_makes_it_and_leaves_the_rest_to_the_leader() -> None:
    cluster = ClusterWithWebhook()
    standby = Replica(cluster, leads=False)
    assert await standby.look() == ["create Secret"]
    assert standby.keeper.check() is None
    assert cluster.published == b""
    standby.now += timedelta(days=61)
    assert await standby.look() == [], "what is due and can still be served is the leader's to renew"
    leader = Replica(cluster, now=standby.now)
    assert await leader.look() == ["update Secret", "apply ValidatingWebhookConfiguration"]


async def test_of_two_that_make_it_at_once_both_show_what_was_written_first() -> None:
    cluster = ClusterWithWebhook()
    first = files(at=NOW)

    def faster(_: object) -> None:
        cluster.before_write = lambda _: None
        cluster.holds(first)

    cluster.before_write = faster
    replica = Replica(cluster, leads=False)
    await replica.look()
    assert cluster.secret == first
    assert not replica.tls.load(certificate=first[CERTIFICATE], key=first[KEY]), "it is shown already"


async def test_a_renewal_keeps_what_others_wrote_into_the_secret() -> None:
    cluster = ClusterWithWebhook()
    cluster.holds({**files(at=NOW), "note": b"theirs"}, metadata={"labels": {"team": "blue"}}, type="Opaque")
    leader = Replica(cluster, now=NOW + timedelta(days=61))
    assert await leader.look() == ["update Secret", "apply ValidatingWebhookConfiguration"]
    assert cluster.secret["note"] == b"theirs"
    assert cluster.shows(SECRETS, SECRET)["metadata"]["labels"] == {"team": "blue"}


async def test_garbage_is_replaced_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = ClusterWithWebhook()
    cluster.holds({CERTIFICATE: b"garbage", KEY: b"", CA: b"\x00"})
    leader = Replica(cluster)
    assert await leader.look() == ["update Secret", "apply ValidatingWebhookConfiguration"]
    assert leader.keeper.check() is None
    assert "wrote the Secret llamamodel-system/hook: a new authority" in caplog.text


@pytest.mark.parametrize(
    "refuse",
    [
        lambda cluster: cluster.refuses("ValidatingWebhookConfiguration", FORBIDDEN),
        lambda cluster: setattr(cluster, "before_read", _refuses_reading("ValidatingWebhookConfiguration")),
        lambda cluster: setattr(cluster, "configuration", None),
    ],
    ids=["not writable", "not readable", "not there"],
)
async def test_a_configuration_that_cannot_be_had_is_said_once_and_keeps_nothing_else_from_working(
    refuse: Callable[[ClusterWithWebhook], None], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = ClusterWithWebhook()
    refuse(cluster)
    leader = Replica(cluster)
    await leader.run_for(100)
    assert leader.keeper.check() is None
    assert leader.failures("configuration") >= 3
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("the authority of the webhook's certificate: ")


def _refuses_reading(refused: str) -> Callable[[str], None]:
    def check(kind: str) -> None:
        if kind == refused:
            raise FORBIDDEN

    return check


async def test_a_secret_that_cannot_be_read_is_told_by_readyz_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster = ClusterWithWebhook()
    cluster.before_read = _refuses_reading("Secret")
    leader = Replica(cluster)
    await leader.run_for(10)
    assert leader.keeper.check() == "no certificate yet; secrets is forbidden"
    assert len(caplog.records) == 1
    cluster.before_read = lambda _: None
    await leader.run_for(1)
    assert leader.keeper.check() is None


@pytest.mark.parametrize(
    "failure",
    [FORBIDDEN, LeaseLostError("lost"), aiohttp.ClientError("cut"), TimeoutError(), RuntimeError("a bug")],
    ids=lambda failure: type(failure).__name__,
)
async def test_nothing_ends_the_keeper(failure: Exception) -> None:
    cluster = ClusterWithWebhook()
    cluster.refuses("Secret", failure)
    leader = Replica(cluster)
    await leader.run_for(5)
    assert leader.failures("secret") >= 3
    cluster.before_write = lambda _: None
    await leader.run_for(1)
    assert leader.keeper.check() is None


async def test_once_it_shows_a_certificate_it_looks_every_half_minute() -> None:
    cluster = ClusterWithWebhook()
    reads: list[str] = []
    cluster.before_read = reads.append
    await Replica(cluster, leads=False).run_for(100)
    assert reads.count("Secret") == 4
    assert set(reads) == {"Secret"}, "the configuration is the leader's"


async def test_one_that_begins_to_lead_publishes_within_a_second() -> None:
    cluster = ClusterWithWebhook()
    replica = Replica(cluster, leads=False)
    running = asyncio.create_task(replica.keeper.run())
    await asyncio.sleep(5)
    assert cluster.published == b""
    replica.leads = True
    await asyncio.sleep(1.1)
    assert cluster.published == cluster.secret[CA]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_secret_of_cert_manager_is_only_read() -> None:
    cluster = ClusterWithWebhook()
    replica = Replica(cluster, makes=False)
    assert await replica.look() == []
    assert replica.keeper.check() == f"no certificate yet; the Secret {SECRET} holds no tls.crt and tls.key"
    made = files(at=NOW)
    cluster.holds({name: made[name] for name in (CERTIFICATE, KEY, CA)})
    replica.now = NOW + timedelta(days=89)
    assert await replica.look() == []
    assert replica.keeper.check() is None


async def test_what_was_shown_before_stays_when_the_secret_turns_to_garbage() -> None:
    cluster = ClusterWithWebhook()
    cluster.holds(files(at=NOW))
    replica = Replica(cluster, makes=False)
    await replica.look()
    cluster.holds({CERTIFICATE: b"garbage", KEY: b"garbage"})
    await replica.look()
    assert replica.keeper.check() is None
    assert replica.failures("secret") == 1


def test_the_server_is_called_by_its_service() -> None:
    assert NAMES.dns == ("hook.llamamodel-system.svc", "localhost")
