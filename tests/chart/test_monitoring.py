"""What the chart gives a Prometheus and a Grafana."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.process_collector import ProcessCollector

from llamamodel_operator.api.labels import CONTAINER, MANAGED_BY_LABEL, MANAGER, MODEL_LABEL, NAME_LABEL
from llamamodel_operator.core.objects.names import child_name, labels
from support.promql import Scraped, problems, scraped

ROOT = Path(__file__).parents[2]
NAME, NAMESPACE = "llamamodel-operator", "llamamodel-system"
ALL = '{"monitoring": {"enabled": true}, "gateway": {"enabled": true}}'
OURS = ("PodMonitor", "PrometheusRule", "ConfigMap")


def helm() -> str:
    """$HELM, else the local cluster's, else the one on PATH."""
    if named := os.environ.get("HELM"):
        return named
    asked = [sys.executable, str(ROOT / "hack" / "cluster"), "bin-dir"]
    bin_dir = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    found = shutil.which("helm", path=os.pathsep.join(filter(None, (bin_dir, os.environ.get("PATH")))))
    assert found is not None, "run `python3 hack/cluster build --only helm`"
    return found


def template(values: str) -> subprocess.CompletedProcess[str]:
    chart = str(ROOT / "charts" / NAME)
    command = [
        helm(),
        "template",
        NAME,
        chart,
        "--namespace",
        NAMESPACE,
        "--set",
        "crds.enabled=false",
        "--values",
        "-",
    ]
    env = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False, env=env)


@cache
def objects(values: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What is installed for monitoring, by kind and name."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    found = [doc for doc in yaml.safe_load_all(done.stdout) if doc and doc["kind"] in OURS]
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in found}


def alerts(values: str) -> dict[str, dict[str, Any]]:
    """By name."""
    groups = objects(values)["PrometheusRule", NAME]["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def monitor(part: str, values: str = ALL) -> Any:
    return objects(values)["PodMonitor", f"{NAME}-{part}"]["spec"]


def test_nothing_of_it_is_there_unless_it_is_asked_for() -> None:
    assert objects("{}") == {}


def test_each_part_can_be_left_out() -> None:
    def kinds(**off: bool) -> set[str]:
        parts = {name: {"enabled": enabled} for name, enabled in off.items()}
        return {kind for kind, _ in objects(json.dumps({"monitoring": {"enabled": True, **parts}}))}

    assert kinds() == set(OURS)
    assert kinds(scrape=False) == {"PrometheusRule", "ConfigMap"}
    assert kinds(alerts=False) == {"PodMonitor", "ConfigMap"}
    assert kinds(dashboards=False) == {"PodMonitor", "PrometheusRule"}


def test_without_a_gateway_and_a_webhook_nobody_is_alarmed_about_them() -> None:
    alone = '{"monitoring": {"enabled": true}, "webhook": {"mode": "off"}}'
    assert ("PodMonitor", f"{NAME}-gateway") not in objects(alone)
    assert ("ConfigMap", f"{NAME}-dashboard-gateway") not in objects(alone)
    assert {name for name in alerts(ALL) if "Gateway" in name or "Webhook" in name}
    assert not {name for name in alerts(alone) if "Gateway" in name or "Webhook" in name}


def test_the_pods_of_models_are_found_by_the_labels_that_the_operator_gives_them() -> None:
    spec = monitor("models")
    assert spec["selector"]["matchLabels"] == {NAME_LABEL: CONTAINER, MANAGED_BY_LABEL: MANAGER}
    assert spec["selector"]["matchLabels"].items() <= labels("gemma").items()
    assert spec["selector"]["matchExpressions"] == [{"key": MODEL_LABEL, "operator": "Exists"}]
    assert spec["namespaceSelector"] == {"any": True}
    renamed, *_ = spec["podMetricsEndpoints"][0]["relabelings"]
    meta = "__meta_kubernetes_pod_label_" + re.sub(r"[^a-zA-Z0-9]", "_", MODEL_LABEL)
    assert renamed == {"sourceLabels": [meta], "targetLabel": "service"}


def test_with_watched_namespaces_models_are_looked_for_in_these_alone() -> None:
    values = '{"monitoring": {"enabled": true}, "watchNamespaces": ["team-a", "team-b"]}'
    assert monitor("models", values)["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}


def test_the_label_namespace_of_operator_and_gateway_is_that_of_the_model() -> None:
    for part in ("operator", "gateway"):
        assert monitor(part)["podMetricsEndpoints"][0]["honorLabels"] is True


def test_pods_of_models_whose_target_would_be_down_are_left_out() -> None:
    rules = monitor("models")["podMetricsEndpoints"][0]["relabelings"]
    assert [(rule["action"], rule["sourceLabels"], rule["regex"]) for rule in rules if "action" in rule] == [
        ("keep", ["__meta_kubernetes_pod_ready"], "true"),
        ("drop", ["__meta_kubernetes_pod_annotation_prometheus_io_scrape"], "false"),
    ]


def test_the_api_server_calls_the_webhook_by_the_name_that_its_alert_asks_for() -> None:
    done = template("{}")
    (hooks,) = [
        doc for doc in yaml.safe_load_all(done.stdout) if doc and doc["kind"] == "ValidatingWebhookConfiguration"
    ]
    expr = alerts(ALL)["LlamaModelWebhookUnreachable"]["expr"]
    assert {*re.findall(r'\{name="([^"]+)"', expr)} == {hook["name"] for hook in hooks["webhooks"]}


def test_servers_may_want_a_key() -> None:
    given = {"credentials": {"name": "key", "key": "token"}}
    values = json.dumps({"monitoring": {"enabled": True, "scrape": {"modelAuthorization": given}}})
    assert monitor("models", values)["podMetricsEndpoints"][0]["authorization"] == given
    assert "authorization" not in monitor("models")["podMetricsEndpoints"][0]


def test_a_prometheus_that_selects_by_labels_finds_them() -> None:
    values = '{"monitoring": {"enabled": true, "labels": {"release": "prometheus"}}}'
    for (kind, _), made in objects(values).items():
        assert (made["metadata"]["labels"].get("release") == "prometheus") is (kind != "ConfigMap")


def test_dashboards_are_labelled_and_load_as_json() -> None:
    found = {name: doc for (kind, name), doc in objects(ALL).items() if kind == "ConfigMap"}
    assert set(found) == {f"{NAME}-dashboard-{part}" for part in ("gateway", "models", "operator")}
    for doc in found.values():
        assert doc["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = doc["data"].items()
        dashboard = json.loads(text)
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert (f"{dashboard['uid']}.json", len(set(ids))) == (name, len(ids))


def test_an_alert_says_how_bad_it_is_and_what_to_read() -> None:
    for name, alert in alerts(ALL).items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["for"], name
        assert {"summary", "description", "runbook_url"} == set(alert["annotations"]), name
        assert (ROOT / alert["annotations"]["runbook_url"]).is_file(), name
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(alerts(ALL))


def test_alerts_can_be_left_out_and_their_runbooks_be_elsewhere() -> None:
    settings = {"without": ["LlamaModelNotReady"], "runbookUrl": "https://wiki.example.com/llm/"}
    found = alerts(json.dumps({"monitoring": {"enabled": True, "alerts": settings}}))
    assert "LlamaModelNotReady" not in found
    address = found["LlamaModelFailed"]["annotations"]["runbook_url"]
    assert address == "https://wiki.example.com/llm/LlamaModelFailed.md"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("{scrape: {interval: 30}}", "interval"),
        ("{scrape: {interval: often}}", "interval"),
        ("{scrape: {modelAuthorization: {credentials: {name: key}}}}", "credentials"),
        ("{alerts: {without: [Other]}}", "without"),
        ("{dashboards: {labels: [grafana]}}", "labels"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: str, named: str) -> None:
    done = template(f"monitoring: {values}")
    assert done.returncode != 0
    assert named in done.stderr


# --- queries, beside what was scraped


def queries() -> list[tuple[str, str]]:
    """Each query of an alert or a dashboard, with where it is."""
    found = [(name, alert["expr"]) for name, alert in alerts(ALL).items()]
    for (kind, name), doc in objects(ALL).items():
        if kind == "ConfigMap":
            ((_, text),) = doc["data"].items()
            panels = json.loads(text)["panels"]
            found += [(f"{name}: {p['title']}", q["expr"]) for p in panels for q in p.get("targets", ())]
    return [(where, query.replace("$__rate_interval", "5m")) for where, query in found]


@cache
def recorded() -> Scraped:
    """Of a real operator, a real gateway and a real llama-server; what every process has is not in the files."""
    files = sorted((ROOT / "tests" / "monitoring" / "recorded").glob("*.txt"))
    assert [file.stem for file in files] == ["gateway", "models", "operator"]
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    return scraped(*(file.read_text() for file in files), generate_latest(process).decode())


_WEBHOOK = frozenset(("name", "type", "instance"))
_NOT_RECORDED = {
    # Of the API server: k8s.io/apiserver, pkg/admission/metrics.
    "apiserver_admission_webhook_fail_open_count": _WEBHOOK,
    "apiserver_admission_webhook_rejection_count": _WEBHOOK | {"operation", "error_type", "rejection_code"},
    "llamamodel_gateway_certificate_expiry_timestamp_seconds": frozenset(("namespace", "pod")),  # without TLS
}


def exported() -> Scraped:
    """All that can be asked for."""
    return {**_NOT_RECORDED, **recorded()}


def test_every_query_asks_for_what_is_exported() -> None:
    found = queries()
    assert len(found) > 60
    wrong = {f"{where}: {problem}" for where, query in found for problem in problems(query, exported())}
    assert wrong == set()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("llamacpp:requests_defered", "llamacpp:requests_defered is exported by nobody"),
        ('llamamodel_operator_models{fase="Ready"}', "llamamodel_operator_models has no label fase"),
        ('llamamodel_operator_models{phase="Redy"}', "llamamodel_operator_models: phase is never Redy"),
        ("sum by (name) (llamamodel_operator_model_pods)", "has the label name"),
        ("llamacpp:requests_deferred > on (modl) llamamodel_operator_model_pods", "has the label modl"),
    ],
)
def test_a_query_for_something_else_is_found_out(query: str, problem: str) -> None:
    (found,) = problems(query, recorded())
    assert problem in found


# --- alerts, tried by promtool

CASES = sorted((ROOT / "tests" / "monitoring").glob("*.yaml"))


def promtool(*arguments: str) -> str:
    """What it says; fails where it finds something."""
    found = subprocess.run([sys.executable, ROOT / "hack" / "promtool"], stdout=subprocess.PIPE, text=True, check=True)
    done = subprocess.run([found.stdout.strip(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(objects(ALL)["PrometheusRule", NAME]["spec"]))
    copies = [str(shutil.copy(file, tmp_path)) for file in CASES]
    promtool("test", "rules", *copies)


def test_panels_show_a_model_whose_service_has_another_name(tmp_path: Path) -> None:
    chosen, other = "qwen2.5", "gemma"
    asked = [query for _, query in queries() if "llamacpp:" in query and "$model" in query]
    assert len(asked) > 8
    filled = [query.replace("$namespace", "demo").replace("$model", chosen) for query in asked]
    known = {model: child_name(model) for model in (chosen, other)}
    series = {
        f'{metric}{{namespace="demo",service="{service}",pod="{service}-0"}}': "0+60x20"
        for metric in recorded()
        if metric.startswith("llamacpp:")
        for service in known.values()
    }
    for model, service in known.items():
        series[f'llamamodel_operator_model_info{{namespace="demo",model="{model}",service="{service}"}}'] = "1x20"
        series[f'llamamodel_operator_model_slots{{namespace="demo",model="{model}"}}'] = "4x20"
        series[f'llamamodel_operator_model_pods_ready{{namespace="demo",model="{model}"}}'] = "1x20"
    expected = [{"labels": f'{{namespace="demo",model="{chosen}"}}', "value": 1}]
    asks = [
        {"expr": f"count by (namespace, model) ({query})", "eval_time": "15m", "exp_samples": expected}
        for query in filled
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": given, "promql_expr_test": asks}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    promtool("test", "rules", str(tmp_path / "panels.yaml"))


def test_prometheus_itself_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"q:{index}", "expr": query} for index, (_, query) in enumerate(queries())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_alerts_are_tried_with_series_that_are_exported() -> None:
    cases = [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    series = {given["series"] for case in cases for given in case["input_series"]}
    wrong = {f"{one}: {problem}" for one in series for problem in problems(one, exported())}
    assert wrong == set()


def test_every_alert_is_made_to_fire() -> None:
    rules = objects(ALL)["PrometheusRule", NAME]["spec"]["groups"]
    fired = set(re.findall(r'alertname="(\w+)"', "".join(file.read_text() for file in CASES)))
    assert fired == {rule["alert"] for group in rules for rule in group["rules"]}
