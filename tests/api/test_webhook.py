"""The admission webhook as the API server and kubectl see it, while it works, while it is down, while keys change."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.shell.certificates import CA, CERTIFICATE, KEY, renewed
from support.gitops import gitops_rules

from .harness.audit import AuditLog
from .harness.bench import Bench
from .harness.kube import Kube, Obj, RefusedByServerError, path_of
from .harness.models import Manifest, a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess
from .harness.waiting import eventually

REVIEWING_OPERATOR = Path(__file__).parent / "harness" / "reviewing_operator.py"
CONFIGURATION = "ValidatingWebhookConfiguration"
TOLD = "spec.env[0].name: DOUBTFUL is known to nobody; did you mean ACCEPTED?"
REFUSED = "spec.env[0].name: REFUSED is known to nobody; did you mean ACCEPTED?"


def with_variables(*names: str, model: str = "gemma") -> Manifest:
    return a_model(model).with_(env=[{"name": name, "value": "1"} for name in names])


def doubtful(name: str = "gemma") -> Manifest:
    return with_variables("DOUBTFUL", model=name)


def refused(name: str = "gemma") -> Manifest:
    return with_variables("REFUSED", model=name)


def _a_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Hook:
    """The webhook for the test's namespace, and the operators that serve it; the API server asks one of them."""

    bench: Bench
    kube: Kube
    operators: Operators
    name: str
    port: int = field(default_factory=_a_free_port)

    def operator(self, name: str = "operator", *, port: int | None = None, **settings: Any) -> OperatorProcess:
        """One that is not started yet; without a port of its own it is the one that the API server asks."""
        given: dict[str, Any] = {
            "webhook": "self-signed",
            "webhook_name": self.name,
            "webhook_port": self.port if port is None else port,
            "lease_name": self.name,
            "resync_interval_sec": 600,
            "program": (sys.executable, str(REVIEWING_OPERATOR)),
        }
        return self.operators.make(name, **{**given, **settings})

    @property
    def configuration(self) -> dict[str, Any]:
        """As the chart has it, but for the address, and for one namespace."""
        webhook = {
            "name": "validate.llamamodels.llamamodel.dev",
            "clientConfig": {"url": f"https://localhost:{self.port}/validate"},
            "rules": [
                {
                    "apiGroups": ["llamamodel.dev"],
                    "apiVersions": ["v1alpha1"],
                    "resources": ["llamamodels"],
                    "operations": ["CREATE", "UPDATE"],
                    "scope": "Namespaced",
                }
            ],
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.bench.namespace}},
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
        metadata = {"name": self.name}
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": CONFIGURATION}
        return {**kind, "metadata": metadata, "webhooks": [webhook]}

    @property
    def live(self) -> Obj:
        return self.bench.kube.get(CONFIGURATION, "", self.name) or {}

    @property
    def trusted(self) -> bytes:
        """The authorities that the API server knows, PEM."""
        return b64decode(self.live["webhooks"][0]["clientConfig"].get("caBundle", ""))

    def secret(self) -> Obj | None:
        return self.kube.get("Secret", "default", self.name)

    def refuses(self) -> bool:
        try:
            self.kube.create(refused("probe").in_(self.bench.namespace).body, dry_run=True)
        except RefusedByServerError as error:
            return error.status == 422
        return False

    def wait_until_it_refuses(self) -> None:
        eventually(self.refuses, what="the webhook is in force")


@pytest.fixture
def hook(bench: Bench, kube: Kube, operators: Operators) -> Iterator[Hook]:
    made = Hook(bench=bench, kube=kube, operators=operators, name=f"hook-{bench.namespace}")
    kube.apply(made.configuration)
    yield made
    kube.delete(CONFIGURATION, "", made.name)
    kube.delete("Secret", "default", made.name)


@pytest.fixture
def in_force(hook: Hook) -> OperatorProcess:
    """One operator, and the API server asks it."""
    operator = hook.operator()
    operator.start_and_lead()
    hook.wait_until_it_refuses()
    return operator


def write(folder: Path, manifest: Manifest) -> str:
    file = folder / "model.yaml"
    file.write_text(json.dumps(manifest.body))
    return str(file)


# --- what users see


def test_kubectl_prints_the_warnings_and_stores_the_model(
    bench: Bench, in_force: OperatorProcess, tmp_path: Path
) -> None:
    done = bench.cluster.kubectl("--namespace", bench.namespace, "apply", "-f", write(tmp_path, doubtful()))
    assert done.stderr == f"Warning: {TOLD}\n"
    assert bench.get("LlamaModel", "gemma")["spec"]["env"][0]["name"] == "DOUBTFUL"
    assert in_force.metric("webhook_reviews_total", result="warned") == 1


@pytest.mark.parametrize("verb", ["apply", "create", "apply --server-side"])
def test_kubectl_prints_the_errors_and_stores_nothing(
    verb: str, bench: Bench, in_force: OperatorProcess, tmp_path: Path
) -> None:
    command = ["--namespace", bench.namespace, *verb.split(), "-f", write(tmp_path, refused())]
    done = bench.cluster.kubectl(*command, check=False)
    assert done.returncode == 1
    assert REFUSED in done.stderr
    assert bench.find("LlamaModel", "gemma") is None


def test_programs_get_the_reason_and_a_cause_for_each_field(
    bench: Bench, kube: Kube, in_force: OperatorProcess
) -> None:
    manifest = with_variables("REFUSED", "DOUBTFUL", "REFUSED_TOO").in_(bench.namespace)
    answer = kube.http.post(path_of("LlamaModel", bench.namespace), json=manifest.body)
    status = answer.json()
    assert (answer.status_code, status["reason"]) == (422, "Invalid")
    assert [cause["field"] for cause in status["details"]["causes"]] == ["spec.env[0].name", "spec.env[2].name"]
    assert 'admission webhook "validate.llamamodels.llamamodel.dev" denied the request' in status["message"]
    assert "spec.env[1].name: DOUBTFUL is known to nobody" in answer.headers["Warning"]


def test_what_was_stored_before_can_be_stopped_scaled_labelled_and_deleted_but_not_made_worse(
    bench: Bench, kube: Kube, hook: Hook
) -> None:
    bench.create(refused())  # nobody was asked
    operator = hook.operator()
    operator.start_and_lead()
    hook.wait_until_it_refuses()

    bench.edit("LlamaModel", "gemma", {"metadata": {"labels": {"team": "blue"}, "finalizers": ["example.com/theirs"]}})
    bench.edit_spec("gemma", suspend=True)
    bench.kubectl("scale", "llamamodel", "gemma", "--replicas=0")
    # the API server asks again where a status was written meanwhile
    assert operator.metric("webhook_reviews_total", result="warned") >= 2
    with pytest.raises(RefusedByServerError, match="REFUSED is known to nobody"):
        bench.edit_spec("gemma", image="example.com/other:1")
    bench.edit_spec("gemma", env=None)
    bench.delete("LlamaModel", "gemma")
    bench.edit("LlamaModel", "gemma", {"metadata": {"finalizers": None}})
    assert bench.find("LlamaModel", "gemma") is None


def test_the_operators_own_checks_are_what_kubectl_prints(bench: Bench, hook: Hook, tmp_path: Path) -> None:
    operator = hook.operator(program=())
    operator.start_and_lead()
    pinned = a_model().with_(image="ghcr.io/ggml-org/llama.cpp:server-b11669")
    typo, wrong = pinned.with_(extraArgs=["--flash-atten"]), pinned.with_(extraArgs=["--draft-max", "8"])

    def applied(manifest: Manifest) -> str:
        command = ("--namespace", bench.namespace, "apply", "--dry-run=server", "-f", write(tmp_path, manifest))
        return bench.cluster.kubectl(*command, check=False).stderr

    eventually(lambda: applied(typo), what="the webhook is in force")
    assert applied(typo).startswith("Warning: spec.extraArgs[0]: --flash-atten is no flag")
    assert "--flash-attn" in applied(typo)
    assert 'The LlamaModel "gemma" is invalid: spec.extraArgs[0]: --draft-max' in applied(wrong)
    assert applied(pinned) == ""


# --- what is there or not


def test_while_it_is_down_everything_is_taken(bench: Bench, in_force: OperatorProcess, hook: Hook) -> None:
    assert in_force.stop() == 0
    bench.create(refused())
    in_force.start()
    hook.wait_until_it_refuses()
    assert bench.find("LlamaModel", "gemma") is not None


def test_without_a_configuration_it_is_ready_all_the_same_and_says_what_is_missing(hook: Hook, kube: Kube) -> None:
    kube.delete(CONFIGURATION, "", hook.name)
    operator = hook.operator()
    operator.start_and_lead()
    eventually(lambda: operator.messages(f"there is no ValidatingWebhookConfiguration {hook.name}"))
    assert "webhook: ok" in operator.http("/readyz")[1]
    assert operator.metric("webhook_certificate_failures_total", step="configuration") >= 1


def test_with_cert_manager_it_waits_for_the_secret_and_only_reads(hook: Hook, kube: Kube, audit: AuditLog) -> None:
    mark = audit.mark()
    operator = hook.operator(webhook="cert-manager")
    operator.start()
    eventually(lambda: "webhook: no certificate yet" in operator.http("/readyz")[1])
    assert operator.http("/readyz")[0] == 503
    made = renewed({}, names=("localhost",), now=datetime.now(UTC), life=timedelta(hours=1), published=None)
    assert made is not None
    _store(kube, hook.name, {name: made.data[name] for name in (CA, CERTIFICATE, KEY)})
    eventually(lambda: operator.leads, what="it is ready")
    assert hook.trusted == b"", "that is cert-manager's"
    assert [found for found in mark.writes() if found.what in ("secrets", "validatingwebhookconfigurations")] == []


def test_where_nothing_changes_nothing_is_written(hook: Hook, kube: Kube, audit: AuditLog) -> None:
    operator = hook.operator(webhook_certificate_life_sec=96)  # it looks each second
    operator.start_and_lead()
    hook.wait_until_it_refuses()
    before, mark = (hook.secret(), hook.live), audit.mark()
    time.sleep(3)
    kube.apply(hook.configuration)  # what a GitOps tool does all the time; it has no caBundle
    time.sleep(3)
    assert mark.writes() == []
    assert hook.secret() == before[0]
    assert hook.live["webhooks"] == before[1]["webhooks"]


@pytest.mark.parametrize("side", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_argo_cd_finds_no_difference_in_the_configuration_and_leaves_the_authority(
    side: tuple[str, ...], hook: Hook
) -> None:
    hook.operator().start_and_lead()
    hook.wait_until_it_refuses()
    trusted, kubeconfig = hook.trusted, hook.bench.cluster.kubeconfig

    gitops_rules("apply", *side, stdin=[hook.configuration], kubeconfig=kubeconfig)

    (found,) = json.loads(gitops_rules("diff", *side, stdin=[hook.configuration], kubeconfig=kubeconfig).stdout)
    assert found["modified"] is False
    assert hook.trusted == trusted != b""


def test_a_secret_that_is_deleted_or_spoilt_is_made_anew(hook: Hook, kube: Kube) -> None:
    operator = hook.operator(webhook_certificate_life_sec=96)
    operator.start_and_lead()
    hook.wait_until_it_refuses()
    first = hook.trusted

    kube.delete("Secret", "default", hook.name)
    eventually(lambda: hook.trusted != first, what="another authority is published")
    hook.wait_until_it_refuses()
    garbage = {name: b64encode(b"garbage").decode() for name in (CA, CERTIFICATE, KEY)}
    second = hook.trusted
    kube.merge("Secret", "default", hook.name, {"data": garbage})
    eventually(lambda: hook.trusted != second, what="another authority is published")
    hook.wait_until_it_refuses()
    assert operator.messages("the one that was found cannot be read")


# --- several replicas, and keys that change


def test_a_replica_that_stands_by_reviews_and_goes_on_when_the_leader_is_killed(hook: Hook) -> None:
    leader, standby = hook.operator("leader", port=0), hook.operator("standby")
    leader.start_and_lead()
    standby.start()
    hook.wait_until_it_refuses()
    assert standby.metric("leader") == 0
    eventually(
        lambda: hook.refuses() and standby.metric("webhook_reviews_total", result="refused") >= 1,
        what="the one that stands by answers",
    )
    assert leader.metric("webhook_reviews_total") == 0

    leader.end()
    assert hook.refuses(), "it needs no leader"
    eventually(lambda: standby.leads, what="the other leads", within=20)
    assert hook.refuses()


LIFE_SEC = 48
"""An overlap is two seconds then."""


def test_no_review_is_lost_while_the_certificate_and_its_authority_are_replaced(
    bench: Bench, hook: Hook, kube: Kube
) -> None:
    """Under load, on a replica that does not make the certificates itself. The authority comes into its last third
    40 s after the start, in which also a busy machine starts both replicas, the certificate before."""
    now, life = datetime.now(UTC), timedelta(seconds=LIFE_SEC)
    names = (f"{hook.name}.default.svc", "localhost")
    old = renewed({}, names=names, now=now - life * 8 / 3 + timedelta(seconds=40), life=life, published=None)
    assert old is not None
    spent = {**old.data, CERTIFICATE: b"", KEY: b""}
    data = renewed(spent, names=names, now=now - life * 2 / 3 + timedelta(seconds=30), life=life, published=None)
    assert data is not None
    _store(kube, hook.name, data.data)
    leader = hook.operator("leader", port=0, webhook_certificate_life_sec=LIFE_SEC)
    standby = hook.operator("standby", webhook_certificate_life_sec=LIFE_SEC)
    leader.start_and_lead()
    standby.start()
    hook.wait_until_it_refuses()
    assert hook.trusted == data.data[CA]

    enough, shown = threading.Event(), set[bytes]()
    with ThreadPoolExecutor(5) as threads:
        watching = threads.submit(_watch_the_handshakes, hook, shown, enough)
        applying = [threads.submit(_apply_again_and_again, hook, f"m{number}", enough) for number in range(4)]
        try:
            eventually(
                lambda: (
                    leader.messages("the authority before is not needed any more")
                    or watching.done()
                    or any(task.done() for task in applying)
                ),
                what="the old authority is gone",
                within=120,
            )
            time.sleep(2)
        finally:
            enough.set()
    watching.result()
    applied = sum(task.result() for task in applying)

    assert hook.trusted.count(b"BEGIN CERTIFICATE") == 1
    assert not set(hook.trusted.split(b"-----BEGIN")) & set(data.data[CA].split(b"-----BEGIN")) - {b""}
    assert len(shown) >= 3, "the first one, its successor, and the one of the new authority"
    assert applied >= 200
    assert standby.metric("webhook_reviews_total", result="warned") >= applied / 2
    assert standby.metric("webhook_reviews_total", result="failed") == 0
    assert leader.metric("webhook_reviews_total") == 0


def _apply_again_and_again(hook: Hook, name: str, enough: threading.Event) -> int:
    """Every second one is to be refused, the others are to come with a warning: one that nobody reviewed is neither."""
    kube = Kube.connect(hook.bench.cluster)
    path = f"{path_of('LlamaModel', hook.bench.namespace)}/{name}"
    number = 0
    with kube.http:
        while not enough.is_set():
            wrong = number % 2 == 1
            manifest = (refused if wrong else doubtful)(name).in_(hook.bench.namespace)
            answer = kube.http.patch(
                path,
                json=manifest.with_(engine={"contextSize": 1024 + number}).body,
                params={"fieldManager": "tests", "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
            )
            reviewed = answer.status_code == 422 if wrong else "DOUBTFUL" in answer.headers.get("Warning", "")
            assert reviewed, f"number {number} was not reviewed: {answer.status_code} {answer.text}"
            number += 1
    return number


def _watch_the_handshakes(hook: Hook, shown: set[bytes], enough: threading.Event) -> None:
    """As an API server that connects anew each time, with the authorities that it was told of."""
    while not enough.is_set():
        trust = ssl.create_default_context(cadata=hook.trusted.decode())
        with (
            socket.create_connection(("127.0.0.1", hook.port), timeout=10) as connection,
            trust.wrap_socket(connection, server_hostname="localhost") as secured,
        ):
            certificate = secured.getpeercert(binary_form=True)
            assert certificate is not None
            shown.add(certificate)
        time.sleep(0.1)


def _store(kube: Kube, name: str, data: Mapping[str, bytes]) -> None:
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"},
            "type": "kubernetes.io/tls",
            "data": {key: b64encode(content).decode() for key, content in data.items()},
        }
    )
