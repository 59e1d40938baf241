"""Alerts and dashboards while the leader changes: two pods of the operator tell of the same LlamaModels for a while."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from chart.test_monitoring import ALL, NAME, NAMESPACE, ROOT, monitor, objects, promtool, recorded
from support.promql import metrics_of

RECORDED = ROOT / "tests" / "monitoring" / "recorded"
PROCESS = ("process_resident_memory_bytes 1e8", "process_cpu_seconds_total 9")
"""What every process has, which is not recorded."""
MODEL = "gemma"


def targets() -> Iterator[tuple[str, Mapping[str, str]]]:
    """What is scraped: the part that says it, and the labels of the target."""
    for part, pods in (("operator", ("operator-old", "operator-new")), ("gateway", ("gateway-0",))):
        for pod in pods:
            yield part, {"namespace": NAMESPACE, "job": f"system/{part}", "pod": pod, "instance": f"{pod}:8080"}
    server = {
        "namespace": "test-monitoring",
        "job": "system/models",
        "pod": f"{MODEL}-0",
        "instance": f"{MODEL}-0:8080",
    }
    yield "models", {**server, **of_model()}


def of_model() -> dict[str, str]:
    """What the PodMonitor adds to the metrics of a server."""
    rules = monitor("models")["podMetricsEndpoints"][0]["relabelings"]
    return {rule["targetLabel"]: MODEL for rule in rules if "targetLabel" in rule}


def series() -> Iterator[dict[str, str]]:
    """All of it, as promtool wants series; what they say stays the same for 20 minutes."""
    for part, target in targets():
        lines = (RECORDED / f"{part}.txt").read_text().splitlines()
        for line in (*lines, *(PROCESS if part == "operator" else ())):
            if line.startswith("#"):
                continue
            name, _, value = line.rpartition(" ")
            own = dict(re.findall(r'(\w+)="([^"]*)"', name))
            # As with honorLabels: what is scraped goes before what the target is.
            labels = ",".join(f'{key}="{text}"' for key, text in {**target, **own}.items())
            yield {"series": f"{name.partition('{')[0]}{{{labels}}}", "values": f"{float(value):f}x20"}


def lines_of_panels() -> Iterator[tuple[str, str]]:
    """Each query of a dashboard, and the grouping that puts series together which the panel calls the same."""
    for (kind, _), doc in objects(ALL).items():
        if kind != "ConfigMap":
            continue
        ((_, text),) = doc["data"].items()
        for panel in json.loads(text)["panels"]:
            for asked in panel.get("targets", ()):
                query = asked["expr"].replace("$__rate_interval", "5m")
                for variable in ("$namespace", "$model"):
                    query = query.replace(variable, ".*")
                legend = ", ".join(re.findall(r"{{(\w+)}}", asked["legendFormat"]))
                yield query, "without (pod, instance)" if panel["type"] == "table" else f"by ({legend})"


def try_out(folder: Path, given: Iterable[Mapping[str, str]], *asked: str, expected: Sequence[object] = ()) -> None:
    """Each query must find in the given series, after 15 minutes, what is expected; no alert may fail meanwhile."""
    tests = [{"expr": query, "eval_time": "15m", "exp_samples": [*expected]} for query in asked]
    case = {"interval": "1m", "input_series": [*given], "promql_expr_test": tests}
    (folder / "rules.yaml").write_text(yaml.safe_dump(objects(ALL)["PrometheusRule", NAME]["spec"]))
    (folder / "case.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
    promtool("test", "rules", str(folder / "case.yaml"))


def test_every_line_of_a_panel_has_a_name_of_its_own_and_no_alert_fails(tmp_path: Path) -> None:
    asked = [f"count {grouped} ({query}) > 1" for query, grouped in lines_of_panels()]
    assert len(asked) > 40
    try_out(tmp_path, series(), *asked)


def test_every_panel_shows_something(tmp_path: Path) -> None:
    """So that the case before has something to look at; what is shown of a model that is not Ready is not recorded."""
    asked = [query for query, _ in lines_of_panels() if metrics_of(query) <= recorded().keys()]
    shown = [query for query in asked if 'status!="True"' not in query]
    assert len(shown) > 40
    try_out(tmp_path, series(), *(f"vector(0) unless on () ({query})" for query in shown))


@pytest.mark.parametrize(
    "query",
    [
        "llamamodel_operator_model_phase",
        "llamamodel_operator_model_slots * on (namespace, model) llamamodel_operator_model_pods_ready",
    ],
)
def test_a_query_that_does_not_aggregate_is_found_out(tmp_path: Path, query: str) -> None:
    with pytest.raises(AssertionError, match="FAILED"):
        try_out(tmp_path, series(), f"count by (namespace, model, phase) ({query}) > 1")


def test_a_queue_is_alarmed_about_through_a_change_of_the_leader(tmp_path: Path) -> None:
    def told(name: str, values: int) -> Iterator[dict[str, str]]:
        labels = f'namespace="demo",model="{MODEL}"' + (f',service="{MODEL}"' if name == "info" else "")
        for instance, lives in (("old", f"{values}x10 stale"), ("new", f"_x9 {values}x11")):
            yield {"series": f'llamamodel_operator_model_{name}{{{labels},instance="{instance}"}}', "values": lives}

    labels = ",".join(f'{key}="{text}"' for key, text in of_model().items())
    waiting = {"series": f'llamacpp:requests_deferred{{namespace="demo",pod="{MODEL}-0",{labels}}}', "values": "9x20"}
    given = [waiting, *told("info", 1), *told("slots", 4), *told("pods_ready", 1)]
    firing = 'count by (model) (ALERTS{alertname="LlamaModelQueueGrows",alertstate="firing"})'
    try_out(tmp_path, given, firing, expected=[{"labels": f'{{model="{MODEL}"}}', "value": 1}])
