"""What the runbooks say to type is typed, line by line, and shows what there is to look for.

Operator and gateway are processes and no kubelet runs, so that no pod has a log here: a command for logs must ask the
API server for that of the right pod and container, and is then answered with what the process wrote.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import document_of, files_digest, files_of, inspection_key
from llamamodel_operator.core.objects.facts import build_facts
from llamamodel_operator.shell.gguf_files import open_gguf
from support.chart import NAME, NAMESPACE, render
from support.documentation import blocks
from support.gguf import layer_tensors, llama_metadata, write_gguf

from .harness.bench import Bench, condition
from .harness.cluster import REPOSITORY, Cluster
from .harness.gateway import a_gateway
from .harness.kube import Kube, RefusedByServerError
from .harness.models import a_model
from .harness.operators import Operators
from .harness.waiting import eventually

RUNBOOKS = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
FAILURES = REPOSITORY / "tests" / "unit" / "failure_logs" / "b11669.txt"
LONG_AGO = "2026-01-01T12:00:00Z"
KEY = "a-key-of-the-tests"
GATEWAY_LOGS = f"-n {NAMESPACE} logs -l app.kubernetes.io/component=gateway --since 30m --tail -1"
OPERATOR_LOGS = f"-n {NAMESPACE} logs -l app.kubernetes.io/component=operator --since 30m --tail -1"

SHOWN = {
    # of a model
    "-n NAMESPACE describe lm NAME": r"Conditions:(.|\n)*Reason: +CrashLoop\n(.|\n)*Type: +Ready\n(.|\n)*Events:",
    "-n NAMESPACE get lm NAME -o jsonpath='{.status.lastFailure}'": r'^\{.*"reason":"\w+"',
    "-n NAMESPACE get lm NAME -o jsonpath='{.status.memory}'": r'^\{.*"maxContextSize":',
    "-n NAMESPACE get lm NAME -o jsonpath='{.status.command}'": r'^\["llama-server",',
    "-n NAMESPACE get lm NAME -o jsonpath='{.status.selector}'": r"^llamamodel.dev/model=gemma$",
    "-n NAMESPACE get lm NAME -o wide": r"^gemma +Failed ",
    "-n NAMESPACE get pods -l llamamodel.dev/model=NAME": r"^gemma-0 .* 5 ",
    "-n NAMESPACE get pods -l llamamodel.dev/model=NAME -o wide": r"^gemma-0 ",
    "-n NAMESPACE events | tail -20": r"LlamaModel/gemma ",
    "-n NAMESPACE logs POD --previous --tail 100": r"failed to load model",
    "-n NAMESPACE logs POD --previous --tail 50": r"failed to load model",
    "-n NAMESPACE logs -l llamamodel.dev/model=NAME --since 15m --tail 50": r"failed to load model",
    "-n NAMESPACE logs -l llamamodel.dev/model=NAME --tail -1 | head -50": r"failed to load model",
    "-n NAMESPACE get deploy NAME -o yaml --show-managed-fields | grep manager:": r"manager: (tests|kubectl)",
    "llamamodel top -n NAMESPACE": r"^gemma ",
    # of the operator
    f"-n {NAMESPACE} get pods": rf"^{NAME}-0 ",
    f"-n {NAMESPACE} get deploy {NAME}": rf"^{NAME} ",
    f"-n {NAMESPACE} get lease {NAME} -o yaml": r"holderIdentity: \w+",
    f"-n {NAMESPACE} get secret {NAME}-webhook": r"kubernetes.io/tls",
    f"get validatingwebhookconfiguration {NAME}-webhook": rf"^{NAME}-webhook ",
    f"-n {NAMESPACE} get certificate": rf"^{NAME}-webhook ",
    f"-n {NAMESPACE} describe certificate": rf"Secret Name: +{NAME}-webhook$",
    f"{OPERATOR_LOGS}": r'"message":"',
    f"{OPERATOR_LOGS} | grep -i certificate": r"showing a certificate that is valid until",
    f"{OPERATOR_LOGS} | grep 'put .* back'": r"put Deployment back: .*paused",
    "get --raw /readyz?verbose | tail -5": r"readyz check passed",
    # of the gateway
    f"-n {NAMESPACE} get pods -l app.kubernetes.io/component=gateway": rf"^{NAME}-gateway-0 ",
    f"-n {NAMESPACE} describe deploy {NAME}-gateway": r"Replicas:",
    f"-n {NAMESPACE} logs POD": r'"message":"',
    f"{GATEWAY_LOGS}": r'"message":"',
    f'{GATEWAY_LOGS} | grep \'"model":"NAMESPACE/NAME"\' | grep \'"code"\' | tail': r'"code":"model_unavailable"',
    f"{GATEWAY_LOGS} | grep '\"status\":429' | tail": r'"key":"ci".*|.*"status":429',
    f"-n {NAMESPACE} get secret SECRET -o jsonpath='{{.data.tls\\.crt}}' | base64 -d | openssl x509 -noout -dates": (
        r"^notAfter="
    ),
    "auth can-i list endpointslices.discovery.k8s.io --all-namespaces"
    f" --as system:serviceaccount:{NAMESPACE}:{NAME}-gateway": r"^yes$",
}
"""What each command shows, here, as a regular expression."""

NOT_HERE = {
    f"-n {NAMESPACE} top pods": "Metrics API not available",
}
"""What needs something that this cluster lacks, with what kubectl says to that."""

SOUGHT = {
    f"{OPERATOR_LOGS} | grep 'the pass failed'": "main.py",
    f"{OPERATOR_LOGS} | grep deaf": "shell/resync.py",
    f"{OPERATOR_LOGS} | grep 'a review failed'": "webhook/server.py",
    f"{GATEWAY_LOGS} | grep -i certificate": "gateway/certificate.py",
    "-n NAMESPACE logs -l llamamodel.dev/model=NAME --tail -1 | grep -i 'buffer size'": "core/engine/buffer_log.py",
}
"""What nobody writes here, and the module that writes, or reads, what is sought."""

CHANGING = ("apply", "delete", "patch", "rollout", "scale")


def typed() -> list[str]:
    """The commands of the runbooks, each once, without `kubectl`; one that is only named is none."""
    found: dict[str, None] = {}
    for page in RUNBOOKS:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        lines = [line for block in blocks(page) for line in block.text.splitlines()]
        lines += [" ".join(code.split()) for code in re.findall(r"`(kubectl [^`]+)`", prose)]
        found |= {line.removeprefix("kubectl "): None for line in lines if line != "kubectl top"}
    return list(found)


def changing() -> list[str]:
    """Those that change something."""
    return sorted(command for command in typed() if set(CHANGING) & set(command.split()))


@dataclass(frozen=True)
class Desk:
    """Where somebody reads a runbook: a shell, and a cluster in which the alerts' model has failed."""

    bench: Bench
    environ: dict[str, str]
    pods: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Types it, with names for what is written large."""
        where = self.pods["gateway" if NAMESPACE in command else "model"]
        names = {"NAMESPACE": self.bench.namespace, "NAME": "gemma", "SECRET": f"{NAME}-webhook", "POD": where}
        line = re.sub(r"\b(NAMESPACE|NAME|SECRET|POD)\b", lambda found: names[found[0]], f"kubectl {command}")
        return subprocess.run(
            ["bash", "-c", line],
            env=self.environ,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def test_every_command_is_known() -> None:
    assert set(typed()) == {*SHOWN, *NOT_HERE, *SOUGHT, *changing()}
    assert len(changing()) > 4


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_shows_what_to_look_at(command: str, desk: Desk) -> None:
    done = desk.run(command)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert re.search(SHOWN[command], done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("command", NOT_HERE)
def test_what_this_cluster_lacks_is_said(command: str, desk: Desk) -> None:
    done = desk.run(command)
    assert done.returncode != 0
    assert NOT_HERE[command] in done.stderr


@pytest.mark.parametrize("command", SOUGHT)
def test_what_is_sought_in_a_log_is_what_is_written(command: str, desk: Desk) -> None:
    logs, _, search = command.partition(" | ")
    assert desk.run(logs).returncode == 0
    written = texts_of(REPOSITORY / "operator" / "llamamodel_operator" / SOUGHT[command])
    found = subprocess.run(["bash", "-c", search], input=written, capture_output=True, text=True, check=False)
    assert found.stdout


def texts_of(module: Path) -> str:
    """Its strings, without docstrings, one a line."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = (node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docs)
    return "\n".join(value for value in strings if isinstance(value, str))


def test_what_ends_an_alert_does_what_the_page_says(desk: Desk, kube: Kube) -> None:
    bench, webhook = desk.bench, f"{NAME}-webhook"
    before = kube.get("Secret", NAMESPACE, webhook)
    assert before is not None
    for command in changing():
        done = desk.run(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    spec = bench.get("LlamaModel", "gemma")["spec"]
    assert (spec["suspend"], spec["replicas"]) == (True, 3)
    eventually(lambda: bench.get("LlamaModel", "gemma")["status"]["phase"] == "Suspended", what="its GPU is free")
    eventually(
        lambda: (kube.get("Secret", NAMESPACE, webhook) or before)["metadata"]["uid"] != before["metadata"]["uid"],
        what="the operator makes another certificate",
        within=90,
    )
    template = kube.get("Deployment", NAMESPACE, NAME)
    assert template is not None
    assert "kubectl.kubernetes.io/restartedAt" in template["spec"]["template"]["metadata"]["annotations"]


# --- the cluster


@pytest.fixture(scope="module")
def desk(
    cluster: Cluster,
    kube: Kube,
    kinds_of_others: None,
    module_operators: Operators,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Desk]:
    folder, logs = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("logs")
    bench = Bench(kube=kube, cluster=cluster, namespace="runbooks")
    for namespace in (bench.namespace, NAMESPACE):
        _namespace(kube, namespace)
    objects = _install(cluster)
    operator = module_operators.make(
        "operator",
        lease_name=NAME,
        lease_namespace=NAMESPACE,
        webhook="self-signed",
        webhook_name=f"{NAME}-webhook",
        webhook_port=0,
        operator_image="example.com/operator:1",
        resync_interval_sec=5,
    )
    operator.start_and_lead()
    _fail(bench, folder)
    for name in (NAME, f"{NAME}-gateway"):
        found = kube.get("Deployment", NAMESPACE, name)
        assert found is not None
        Bench(kube=kube, cluster=cluster, namespace=NAMESPACE).play_ready_pod(
            f"{name}-0", template=found["spec"]["template"]
        )
    with _asked(cluster, bench, folder, logs / "gateway"):
        (logs / "operator").symlink_to(operator.log_file)
        (logs / "model").write_text(FAILURES.read_text())
        pods = {"model": "gemma-0", "gateway": f"{NAME}-gateway-0"}
        yield Desk(bench, _environ(cluster, folder, logs), pods)
    operator.stop()
    kube.delete("Lease", NAMESPACE, NAME)
    kube.delete("Secret", NAMESPACE, f"{NAME}-webhook")
    bench.play_namespace_controller()
    cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(objects))
    Bench(kube=kube, cluster=cluster, namespace=NAMESPACE).play_namespace_controller()


def _namespace(kube: Kube, name: str) -> None:
    try:
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    except RefusedByServerError as refused:
        if refused.status != 409:
            raise


def _install(cluster: Cluster) -> list[dict[str, Any]]:
    """The chart, and the Certificates that it has with cert-manager; its webhook reviews nobody's LlamaModels, since
    other tests share this API server."""
    nobodys = {"namespaceSelector": {"matchLabels": {"reviewed": "by-nobody"}}}
    objects = [*render(json.dumps({"gateway": {"enabled": True}, "webhook": nobodys})).all]
    objects += [doc for doc in render('{"webhook": {"mode": "cert-manager"}}').all if doc["kind"] == "Certificate"]
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
    return objects


def _fail(bench: Bench, folder: Path) -> None:
    """A model whose file was inspected, whose Deployment somebody has changed, and whose server does not stay."""
    bench.play_bound_claim()
    file = write_gguf(folder / "gemma.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    model = LlamaModel.parse(bench.create(a_model().with_(gpu={"memory": "24Gi"})))
    files, found = files_of(model.spec), open_gguf(str(file))
    document = document_of(zip(files, [found], strict=True))
    digest = files_digest([found])
    bench.kube.create(build_facts(model, key=inspection_key(files), digest=digest, time=LONG_AGO, document=document))
    deployment = bench.wait_for("Deployment", "gemma")
    bench.kube.strategic("Deployment", bench.namespace, "gemma", {"spec": {"paused": True}})
    eventually(lambda: not bench.get("Deployment", "gemma")["spec"].get("paused"), what="it is put back")
    bench.kubectl("annotate", "deployment", "gemma", "example.com/note=ours")
    bench.play_ready_pod("gemma-0", template=deployment["spec"]["template"])
    ended = {"exitCode": 1, "reason": "Error", "startedAt": LONG_AGO, "finishedAt": LONG_AGO}
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
    of_container = {"name": "llama-server", "image": "x", "imageID": "x", "ready": False, "started": False}
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
    status = {"conditions": conditions, "containerStatuses": [{**of_container, **states, "restartCount": 5}]}
    bench.kube.merge("Pod", bench.namespace, "gemma-0", {"status": status}, subresource="status")
    eventually(lambda: condition(bench.get("LlamaModel", "gemma")).get("reason") == "CrashLoop", what="it has failed")


@contextmanager
def _asked(cluster: Cluster, bench: Bench, folder: Path, log: Path) -> Iterator[None]:
    """A gateway that was asked for the model, and too often."""
    keys = folder / "keys"
    keys.mkdir()
    entry = {"sha256": sha256(KEY.encode()).hexdigest(), "requestsPerMinute": 1}
    (keys / "ci").write_text(json.dumps(entry))
    with a_gateway(cluster, log, f"--keys-dir={keys}") as client:
        body = {"model": f"{bench.namespace}/gemma", "messages": [{"role": "user", "content": "Hello"}]}
        for wanted in (503, 429):
            answer = client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code == wanted, answer.text
        yield


def _environ(cluster: Cluster, folder: Path, logs: Path) -> dict[str, str]:
    """With a kubectl on PATH that answers for logs."""
    own = folder / "bin"
    own.mkdir()
    (own / "kubectl").write_text(
        f"""#!/bin/bash
real={cluster.bin_dir}/kubectl
case " $* " in *" logs "*) ;; *) exec "$real" "$@" ;; esac
asked=$("$real" "$@" -v=6 2>&1) || {{ echo "$asked" >&2; exit 1; }}
case "$asked" in
  */{NAMESPACE}/pods/{NAME}-gateway-0/log\\?*) cat {logs}/gateway ;;
  */{NAMESPACE}/pods/{NAME}-0/log\\?*) cat {logs}/operator ;;
  */pods/gemma-0/log\\?container=llama-server*) cat {logs}/model ;;
  *) echo "expected that a log is asked for, got $asked" >&2; exit 1 ;;
esac
"""
    )
    (own / "kubectl").chmod(0o755)
    path = os.pathsep.join((str(own), str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(folder)}
