"""Two operator pods: one leads. Killed or frozen, the other takes over, and never do both write."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.conftest import OPERATOR_USER, Environment
from support.audit import AuditLog
from support.kube import Kube, KubectlError, eventually, llama_model

pytestmark = pytest.mark.e2e

TAKEOVER_SEC = 20.0


@pytest.fixture(scope="module", autouse=True)
def two_operators(environment: Environment) -> Iterator[None]:
    environment.deploy_operator("replicas=2")
    environment.scale_operator(2)
    # one that could not give the lease back, as its rights were uninstalled with it, holds it for a while
    eventually(lambda: environment.leader() in {pod["metadata"]["name"] for pod in ready_pods(environment)}, within=60)
    yield
    environment.deploy_operator("replicas=1")
    environment.scale_operator(1)


@pytest.fixture
def busy(kube: Kube) -> Iterator[None]:
    """Changes that must be written all the time; the model itself is suspended and needs no GPU."""
    kube.apply(llama_model("busy", suspend=True))
    stop = threading.Event()

    def change() -> None:
        for number in itertools.count():
            if stop.wait(0.3):
                return
            try:
                kube.patch("lm", "busy", {"spec": {"podAnnotations": {"example.com/number": str(number)}}})
            except KubectlError:
                continue

    thread = threading.Thread(target=change, name="changes")
    thread.start()
    yield
    stop.set()
    thread.join()
    kube.delete("llamamodel", "busy")


def test_a_killed_leader_is_followed(
    environment: Environment, busy: None, send_signal: Callable[[str, str], None]
) -> None:
    audit, (first, second) = environment.audit(), leader_and_other(environment)
    writes_of(environment, audit, first)
    send_signal(first["metadata"]["uid"], "SIGKILL")
    killed = time.monotonic()
    eventually(lambda: environment.leader() == second["metadata"]["name"], within=TAKEOVER_SEC)
    print(f"takeover after {time.monotonic() - killed:.1f} s")
    writes_of(environment, audit, second)
    assert_never_both(audit, first, second)


def test_a_frozen_leader_is_followed_and_never_writes_again(
    environment: Environment, busy: None, send_signal: Callable[[str, str], None]
) -> None:
    eventually(lambda: len(ready_pods(environment)) == 2, within=60)
    audit, (first, second) = environment.audit(), leader_and_other(environment)
    writes_of(environment, audit, first)
    send_signal(first["metadata"]["uid"], "SIGSTOP")
    frozen = time.monotonic()
    eventually(lambda: environment.leader() == second["metadata"]["name"], within=TAKEOVER_SEC)
    print(f"takeover after {time.monotonic() - frozen:.1f} s")
    writes_of(environment, audit, second)
    send_signal(first["metadata"]["uid"], "SIGCONT")
    time.sleep(8)
    assert environment.leader() == second["metadata"]["name"]
    assert_never_both(audit, first, second)
    eventually(lambda: len(ready_pods(environment)) == 2, within=60)


def test_a_leader_that_is_asked_to_stop_hands_over_at_once(environment: Environment, busy: None) -> None:
    eventually(lambda: len(ready_pods(environment)) == 2, within=60)
    first, second = leader_and_other(environment)
    environment.system.delete("pod", first["metadata"]["name"], "--wait=false")
    asked = time.monotonic()
    eventually(lambda: environment.leader() == second["metadata"]["name"], within=10)
    print(f"takeover after {time.monotonic() - asked:.1f} s")
    environment.scale_operator(2)


def ready_pods(environment: Environment) -> list[dict[str, Any]]:
    return [
        pod
        for pod in environment.operator_pods()
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        and "deletionTimestamp" not in pod["metadata"]
    ]


def leader_and_other(environment: Environment) -> tuple[dict[str, Any], dict[str, Any]]:
    name, pods = environment.leader(), ready_pods(environment)
    (leader,) = [pod for pod in pods if pod["metadata"]["name"] == name]
    (other,) = [pod for pod in pods if pod["metadata"]["name"] != name]
    return leader, other


def writes_of(environment: Environment, audit: AuditLog, pod: dict[str, Any]) -> None:
    """Waits until this pod writes: else the test would prove nothing."""
    name = pod["metadata"]["name"]
    eventually(lambda: any(write.pod == name for write in audit.writes(user=OPERATOR_USER)), within=30)


def assert_never_both(audit: AuditLog, first: dict[str, Any], second: dict[str, Any]) -> None:
    """All writes of the first come before all writes of the second."""
    writes = audit.writes(user=OPERATOR_USER)
    writers = [write.pod for write in writes]
    assert set(writers) == {first["metadata"]["name"], second["metadata"]["name"]}
    turns = [name for name, _ in itertools.groupby(writers)]
    assert turns == [first["metadata"]["name"], second["metadata"]["name"]], "\n".join(map(str, writes))
