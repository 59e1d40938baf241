"""Changes that hurt nobody: where pods go, how many may be away, and what they finish before they stop."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator import drainer
from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.claims import Reach, reach_of
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.inspection import Inspection, InspectionState
from llamamodel_operator.core.objects.check import check_of
from llamamodel_operator.core.objects.drain import DRAIN_CONTAINER, drain_image_of
from support.serving import serving

from .builders import ModelBuilder, a_model

OPERATOR = "example.com/llamamodel-operator:1"
INSPECTED = Inspection(
    state=InspectionState.UNKNOWN, reason=Reason.INSPECTION_UNAVAILABLE, message="", checks_at_start=True
)
"""The operator's image runs beside the model: it checks the files."""
ONE_NODE = {"models": ("ReadWriteOnce",)}
ONE_POD = {"models": ("ReadWriteOncePod",)}


def planned(model: ModelBuilder, kind: str = "Deployment", **facts: Any) -> dict[str, Any]:
    plan = model.plan(Facts(**facts))
    return next((dict(child) for child in plan.objects if child["kind"] == kind), {})


def pod(model: ModelBuilder, **facts: Any) -> dict[str, Any]:
    spec: dict[str, Any] = planned(model, **facts)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("modes", "reach"),
    [
        ({}, Reach.ANYWHERE),
        ({"models": ()}, Reach.ANYWHERE),
        ({"models": ("ReadOnlyMany",)}, Reach.ANYWHERE),
        ({"models": ("ReadWriteOnce", "ReadOnlyMany")}, Reach.ANYWHERE),
        (ONE_NODE, Reach.ONE_NODE),
        (ONE_POD, Reach.ONE_POD),
        ({"models": ("ReadWriteMany",), "lora": ("ReadWriteOnce",)}, Reach.ONE_NODE),
        ({"models": ("ReadWriteOncePod",), "lora": ("ReadWriteOnce",)}, Reach.ONE_POD),
    ],
)
def test_the_claim_that_reaches_least_decides(modes: Mapping[str, tuple[str, ...]], reach: Reach) -> None:
    adapter = {"name": "sql", "pvc": {"claimName": "lora", "path": "sql.gguf"}}
    spec = a_model().with_spec(loraAdapters=[adapter]).build().spec
    assert reach_of(spec, modes) is reach


def test_a_claim_of_one_pod_is_given_up_before_the_next_pod_starts() -> None:
    strategy = planned(a_model(), claim_modes=ONE_POD)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_pods_of_a_claim_of_one_node_go_where_the_others_are_and_the_user_is_told() -> None:
    own = {"topologyKey": "zone", "labelSelector": {}}
    required, preferred = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))
    model = a_model().with_spec(affinity={"podAffinity": {required: [own]}, "nodeAffinity": {}})
    found = pod(model, claim_modes=ONE_NODE)
    together = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"llamamodel.dev/model": "gemma"}},
    }
    rather = {"weight": 100, "podAffinityTerm": together}
    assert found["affinity"] == {"podAffinity": {required: [own], preferred: [rather]}, "nodeAffinity": {}}
    assert "topologySpreadConstraints" not in found
    assert planned(model, claim_modes=ONE_NODE)["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    (finding,) = (f for f in model.plan(Facts(claim_modes=ONE_NODE)).findings if f.code == "ClaimTiesToNode")
    assert "pods on other nodes wait for it" in finding.message
    assert finding.field == "spec.model.pvc.claimName"


def test_two_pods_on_a_claim_of_one_pod_are_warned_of() -> None:
    model = a_model().with_replicas(2)
    (finding,) = (f for f in model.plan(Facts(claim_modes=ONE_POD)).findings if f.code == "ClaimForOnePod")
    assert "the others wait for it" in finding.message
    assert "ClaimForOnePod" not in {f.code for f in a_model().plan(Facts(claim_modes=ONE_POD)).findings}


def test_pods_spread_over_nodes_unless_the_user_says_otherwise_and_scaling_rolls_none() -> None:
    (constraint,) = pod(a_model())["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert pod(a_model()) == pod(a_model().with_replicas(3))
    assert "topologySpreadConstraints" not in pod(a_model().with_spec(topologySpreadConstraints=[]))


def test_draining_nodes_takes_one_pod_of_several_and_is_not_held_up_by_a_single_one() -> None:
    budget = planned(a_model().with_replicas(2), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == {"matchLabels": {"llamamodel.dev/model": "gemma"}}
    assert planned(a_model(), "PodDisruptionBudget") == {}
    for modes in (ONE_NODE, ONE_POD):
        tied = planned(a_model().with_replicas(2), "PodDisruptionBudget", claim_modes=modes)
        assert tied == {}, "the successor waits for the node that is drained"
    assert planned(a_model().with_replicas(2).suspended(), "PodDisruptionBudget") == {}


# --- before a pod stops


def test_a_pod_asks_its_sidecar_before_it_stops_and_may_take_as_long_as_a_request() -> None:
    found = pod(a_model().with_engine(timeoutSec=120), operator_image=OPERATOR, inspection=INSPECTED)
    (server,), (_, sidecar) = found["containers"], found["initContainers"]
    assert found["terminationGracePeriodSeconds"] == 150
    assert found["shareProcessNamespace"] is True, "process 1 would pass over SIGTERM while it loads"
    hook = server["lifecycle"]["preStop"]["httpGet"]
    assert (hook["port"], hook["scheme"]) == (8081, "HTTP")
    assert re.fullmatch(r"/drain/[0-9a-f]{32}", hook["path"])
    assert sidecar["args"][-2:] == ["--drain-path", hook["path"]]
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8081, "scheme": "HTTP"}
    assert (sidecar["name"], sidecar["image"], sidecar["restartPolicy"]) == (DRAIN_CONTAINER, OPERATOR, "Always")
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod(a_model(), operator_image=OPERATOR, inspection=INSPECTED)["terminationGracePeriodSeconds"] == 3630


def test_the_user_says_how_long_and_0_cuts_answers_off() -> None:
    short = pod(a_model().with_spec(terminationGracePeriodSeconds=7), operator_image=OPERATOR, inspection=INSPECTED)
    assert (short["terminationGracePeriodSeconds"], "lifecycle" in short["containers"][0]) == (7, True)
    none = pod(a_model().with_spec(terminationGracePeriodSeconds=0), operator_image=OPERATOR, inspection=INSPECTED)
    assert (none["terminationGracePeriodSeconds"], "lifecycle" in none["containers"][0]) == (1, False)


def test_where_the_operators_image_could_not_inspect_no_pod_depends_on_it() -> None:
    unable = Inspection(state=InspectionState.UNKNOWN, reason=Reason.INSPECTION_UNAVAILABLE, message="")
    assert "initContainers" not in pod(a_model(), operator_image=OPERATOR, inspection=unable)


def test_an_operator_that_does_not_know_its_own_image_leaves_pods_as_kubernetes_has_them() -> None:
    found = pod(a_model())
    assert found["terminationGracePeriodSeconds"] == 30
    assert not {"initContainers", "shareProcessNamespace"} & found.keys()
    assert "lifecycle" not in found["containers"][0]


@pytest.mark.parametrize(
    ("limits", "requests", "expected"),
    [
        ({}, {}, {"limits": {"memory": "64Mi"}, "requests": {"cpu": "5m", "memory": "32Mi"}}),
        ({"cpu": "4"}, {}, {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "5m", "memory": "32Mi"}}),
        (
            {"cpu": "4", "memory": "8Gi"},
            {},
            {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        ),
        (
            {"cpu": "4", "memory": "8Gi"},
            {"cpu": "1"},
            {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "5m", "memory": "32Mi"}},
        ),
    ],
    ids=["nothing", "a quota on CPU", "guaranteed", "burstable"],
)
def test_the_sidecar_is_small_and_a_guaranteed_pod_stays_one(
    limits: dict[str, str], requests: dict[str, str], expected: object
) -> None:
    model = a_model().with_spec(resources={"limits": limits, "requests": requests})
    _, sidecar = pod(model, operator_image=OPERATOR, inspection=INSPECTED)["initContainers"]
    assert sidecar["resources"] == expected


def test_a_newer_operator_rolls_no_pod_for_its_sidecar() -> None:
    plan = a_model().plan(Facts(operator_image=OPERATOR, inspection=INSPECTED))
    running = next(child for child in plan.objects if child["kind"] == "Deployment")
    settled = a_model().with_status({"engine": {"settledFor": plan.settled_for, "flags": f"b{plan.flags}"}})
    facts = Facts(
        operator_image=f"{OPERATOR}1",
        inspection=INSPECTED,
        running=True,
        running_revision=plan.revision,
        running_drain=drain_image_of(running),
        running_check=check_of(running),
    )
    assert settled.plan(facts).revision == plan.revision
    without = Facts(operator_image=OPERATOR, running=True, running_revision=plan.revision, running_drain="")
    assert "lifecycle" not in str(settled.plan(without).objects)


# --- the sidecar itself


class Server:
    """A llama-server that says what a test has it say, by path; what it has no words for is not there."""

    def __init__(self) -> None:
        self.says: dict[str, tuple[int, str]] = {}

    @contextmanager
    def running(self) -> Iterator[int]:
        known = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = known.says.get(self.path, (404, ""))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        with serving(Handler) as port:
            yield port


def metrics(processing: float, deferred: float) -> tuple[int, str]:
    return 200, f"# HELP x\nllamacpp:requests_processing {processing}\nllamacpp:requests_deferred {deferred}\n"


def slots(*busy: bool) -> tuple[int, str]:
    return 200, json.dumps([{"id": index, "is_processing": one} for index, one in enumerate(busy)])


@pytest.mark.parametrize(
    ("said", "busy"),
    [
        ({"/slots": slots(False, False)}, False),
        ({"/slots": slots(False, True)}, True),
        ({"/slots": slots(False), "/metrics": metrics(0, 0)}, False),
        ({"/slots": slots(False), "/metrics": metrics(0, 1)}, True),
        ({"/slots": (501, "{}"), "/metrics": metrics(0, 0)}, False),
        ({"/slots": (501, "{}"), "/metrics": metrics(1, 0)}, True),
        ({"/slots": (200, "nonsense"), "/metrics": (200, "llamacpp:requests_processing x\n")}, False),
        ({}, False),
        ({"/slots": (401, "{}")}, False),
    ],
)
def test_a_server_is_busy_while_a_slot_is_or_a_request_waits(said: dict[str, tuple[int, str]], busy: bool) -> None:
    server = Server()
    server.says = said
    with server.running() as port:
        assert drainer.is_busy(port) is busy


def test_a_server_that_does_not_tell_is_busy_while_clients_have_connections_to_it(tmp_path: Path) -> None:
    server = Server()
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"

    def table(*rows: str) -> list[str]:
        (tmp_path / "tcp").write_text(header + "".join(f"   0: {row} 00000000:00000000\n" for row in rows))
        return [str(tmp_path / "missing"), str(tmp_path / "tcp")]

    with server.running() as port:
        here = f"0A63000A:{port:04X}"
        assert drainer.is_busy(port, tables=table(f"{here} 0A630001:9C40 01"))
        assert not drainer.is_busy(port, tables=table(f"{here} 0A630001:9C40 06"))
        assert not drainer.is_busy(port, tables=table(f"0100007F:{port:04X} 0100007F:9C40 01"))
        assert not drainer.is_busy(port, tables=table("0A63000A:0001 0A630001:9C40 01"))


def test_a_server_that_answers_nothing_is_busy_while_clients_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drainer, "_ANSWER_SEC", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        table = tmp_path / "tcp"
        table.write_text("header\n")
        assert not drainer.is_busy(port, tables=[str(table)])
        table.write_text(f"header\n   0: 0A63000A:{port:04X} 0A630001:9C40 01 00000000:00000000\n")
        assert drainer.is_busy(port, tables=[str(table)])


def test_a_server_that_has_ended_is_not_busy() -> None:
    with Server().running() as port:
        pass
    assert not drainer.is_busy(port)


def test_it_waits_until_the_server_was_idle_several_times_in_a_row() -> None:
    said = [True, False, True, False, False]
    slept: list[float] = []
    drainer.wait_until_idle(lambda: said.pop(0), sleep=slept.append)
    assert said == []
    assert len(slept) == 5


def test_drain_answers_when_nothing_is_left_to_do_and_is_not_ready_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drainer, "_SETTLE_SEC", 0)
    monkeypatch.setattr(drainer, "_POLL_SEC", 0.01)
    server = Server()
    server.says = {"/slots": slots(True)}
    with server.running() as port:
        drain = drainer._server(0, port, "/drain/me")
        thread = threading.Thread(target=drain.serve_forever, daemon=True)
        thread.start()

        def status(path: str) -> int:
            with closing(http.client.HTTPConnection("127.0.0.1", drain.server_address[1], timeout=30)) as connection:
                connection.request("GET", path)
                return connection.getresponse().status

        assert (status("/drain"), status("/")) == (404, 404), "nobody who does not know the path drains a pod"
        assert status("/ready") == 200
        said: list[int] = []
        asker = threading.Thread(target=lambda: said.append(status("/drain/me")))
        asker.start()
        while status("/ready") == 200:
            assert said == []
        assert said == []
        server.says = {"/slots": slots(False)}
        asker.join()
        assert (said, status("/ready")) == ([200], 503)
        drain.shutdown()
        drain.server_close()
        thread.join()
