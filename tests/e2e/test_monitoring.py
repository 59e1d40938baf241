"""What monitoring asks for is there: a real scrape of operator, gateway and llama-server beside what was recorded.

RENEW_RECORDED=1 writes tests/monitoring/recorded anew, which the tests of queries and alerts go by.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from e2e.conftest import OPERATOR_NAMESPACE, ROOT, Environment, serve
from support.kube import Kube, eventually, llama_model
from support.promql import scraped

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("gpus")]

CHART = ROOT / "charts" / "llamamodel-operator"
RECORDED = ROOT / "tests" / "monitoring" / "recorded"
_FOREIGN = ("process_", "python_")
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=60).read().decode())"
TALK = """
import json, sys, urllib.error, urllib.request as u

def ask(**body):
    body = json.dumps({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, **body}).encode()
    url = f"http://{sys.argv[1]}/v1/chat/completions"
    request = u.Request(url, body, {"Content-Type": "application/json"})
    try:
        return u.urlopen(request, timeout=120).read() and 200
    except urllib.error.HTTPError as error:
        return error.code

long = [{"role": "user", "content": "word " * 3000}]
model = sys.argv[2]
print([ask(model=model), ask(model=model, stream=True), ask(model=model, messages=long), ask(model="nobody/s")])
"""


def pods_of(environment: Environment, kube: Kube) -> dict[str, list[dict[str, Any]]]:
    """The pods that each PodMonitor of the chart selects, by the last word of its name."""
    helm = [
        str(kube.bin_dir / "helm"),
        "template",
        "llamamodel-operator",
        str(CHART),
        "--namespace",
        OPERATOR_NAMESPACE,
    ]
    values = [
        "--set",
        "monitoring.enabled=true,gateway.enabled=true",
        "--show-only",
        "templates/monitoring-scrape.yaml",
    ]
    done = subprocess.run([*helm, *values], capture_output=True, text=True, check=True, timeout=60)
    found = {}
    for monitor in yaml.safe_load_all(done.stdout):
        spec = monitor["spec"]
        selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
        selector = ",".join((selector, *(term["key"] for term in spec["selector"].get("matchExpressions", ()))))
        within = kube if "namespaceSelector" in spec else environment.system
        found[monitor["metadata"]["name"].rpartition("-")[2]] = within.select("pods", selector)
    return found


def address_of(pod: Mapping[str, Any]) -> str:
    """Where the port `http` is, which all PodMonitors name."""
    (port,) = [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if port["name"] == "http"
    ]
    return f"http://{pod['status']['podIP']}:{port}/metrics"


@pytest.fixture(scope="module")
def scrapes(environment: Environment, gateway: str, kube: Kube, in_cluster: Callable[..., str]) -> Mapping[str, str]:
    """What /metrics of each part says, after a model has served and refused requests."""
    engine = {"contextSize": 1024, "parallelSlots": 1}
    # A log this verbose tells what memory the server took.
    serve(kube, llama_model("gemma", gpu={}, engine=engine, extraArgs=["--verbosity", "4"]))
    kube("wait", "--for=jsonpath={.status.memory.measured.host}", "lm/gemma", "--timeout=60s")
    pods = pods_of(environment, kube)

    def scrape(part: str) -> str:
        return in_cluster(GET, address_of(pods[part][0]))

    eventually(lambda: f'model="gemma",namespace="{kube.namespace}"' in scrape("gateway"), within=30, pause=1)
    assert in_cluster(TALK, gateway, f"{kube.namespace}/gemma").strip() == "[200, 200, 400, 404]"
    assert {part: len(found) for part, found in pods.items()} == {"operator": 1, "gateway": 1, "models": 1}
    return {part: scrape(part) for part in pods}


def test_the_scrape_has_what_was_recorded(scrapes: Mapping[str, str]) -> None:
    if os.environ.get("RENEW_RECORDED"):
        for part, text in scrapes.items():
            lines = [
                line
                for line in text.strip().splitlines()
                if not line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(_FOREIGN)
            ]
            (RECORDED / f"{part}.txt").write_text("\n".join(lines) + "\n")
    for part, text in scrapes.items():
        live, recorded = scraped(text), scraped((RECORDED / f"{part}.txt").read_text())
        assert recorded.items() <= live.items(), f"{part}: renew what was recorded"
