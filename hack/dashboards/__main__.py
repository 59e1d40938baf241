"""Writes Grafana's dashboards, charts/llamamodel-operator/monitoring/dashboards/*.json.

    python3 hack/dashboards

A panel is a line here: a title, a unit, and queries with what to call their series. Rows are filled from the left; the
positions of panels follow from their order. tests/chart/test_monitoring.py matches the queries against a real scrape.

While the leader changes, each series about a LlamaModel is there twice, from the old leader and the new one: aggregate
it before it is shown or matched (tests/chart/test_two_operators.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[2] / "charts/llamamodel-operator/monitoring/dashboards"
_WIDTH, _HEIGHT = 8, 8
"""Of a panel, in Grafana's units; a row has 24."""
_COLUMNS = 24 // _WIDTH
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_OF_MODEL = 'namespace=~"$namespace",model=~"$model"'
_BY = "by (namespace, model)"
_NAME = "{{namespace}}/{{model}}"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: as Grafana names it; empty for plain numbers.
        queries: each with the legend of its series.
        stacked: series are shown on top of each other.
        kind: of Grafana's panels: timeseries, stat or table.
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    stacked: bool = False
    kind: str = "timeseries"

    def grafana(self, number: int, *, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana stores it."""
        table = self.kind == "table"
        custom = {"fillOpacity": 10, "stacking": {"mode": "normal" if self.stacked else "none"}}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit or "short",
                    "min": 0,
                    **({"custom": custom} if self.kind == "timeseries" else {}),
                },
                "overrides": [],
            },
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if self.kind == "timeseries" else {},
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": _SOURCE,
                    "expr": query,
                    "legendFormat": legend,
                    **({"instant": True, "format": "table"} if table else {}),
                }
                for index, (query, legend) in enumerate(self.queries)
            ],
            **({"transformations": [_columns()]} if table else {}),
        }


def _columns() -> dict[str, Any]:
    """A table without the columns that say nothing."""
    return {"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `rows` have a title and panels. `models_of` is the metric that fills the choice of models."""

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    models_of: str = ""

    def grafana(self) -> dict[str, Any]:
        """The dashboard as Grafana stores it."""
        panels: list[dict[str, Any]] = []
        y = 0
        for title, row in self.rows:
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": "row",
                    "title": title,
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                    "panels": [],
                }
            )
            y += 1
            for index, panel in enumerate(row):
                x, line = index % _COLUMNS * _WIDTH, index // _COLUMNS * _HEIGHT
                panels.append(panel.grafana(len(panels) + 1, x=x, y=y + line))
            y += -(-len(row) // _COLUMNS) * _HEIGHT
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["llamamodel"],
            "editable": True,
            "schemaVersion": 39,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": self._variables()},
            "links": [{"type": "dashboards", "tags": ["llamamodel"], "title": "LlamaModels", "asDropdown": True}],
            "panels": panels,
        }

    def _variables(self) -> list[dict[str, Any]]:
        source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
        if not self.models_of:
            return [source]
        return [
            source,
            _choice("namespace", f"label_values({self.models_of}, namespace)"),
            _choice("model", f'label_values({self.models_of}{{namespace=~"$namespace"}}, model)'),
        ]


def _choice(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": name.capitalize(),
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def _rate(metric: str, by: str, *matchers: str) -> str:
    return f"sum {by} (rate({metric}{{{','.join(matchers)}}}[$__rate_interval]))"


def _quantiles(histogram: str, by: str, *matchers: str, name: str = "") -> list[tuple[str, str]]:
    grouped = by.replace(")", ", le)") if by else "by (le)"
    buckets = _rate(f"{histogram}_bucket", grouped, *matchers)
    return [(f"histogram_quantile({q}, {buckets})", f"{name} p{q * 100:.0f}".strip()) for q in (0.5, 0.95)]


def _of_device(metric: str) -> str:
    return f"max by (namespace, model, device) ({metric}{{{_OF_MODEL}}})"


def _by_code(metric: str, *matchers: str) -> tuple[str, str]:
    return _rate(metric, "by (namespace, model, code)", _OF_MODEL, *matchers), f"{_NAME} {{{{code}}}}"


_O, _M, _G = "llamamodel_operator", "llamamodel_operator_model", "llamamodel_gateway"


def _of_servers(metric: str, how: str = "sum") -> str:
    """Of a metric of llama-server, which knows its Service alone.

    The operator knows whose Service it is. Of two such series, as when the leader changes, `topk` takes one.
    """
    models = f"topk by (namespace, service) (1, {_M}_info{{{_OF_MODEL}}})"
    return f"{how} {_BY} ({metric} * on (namespace, service) group_left (model) {models})"


def _rate_of_servers(counter: str) -> str:
    return _of_servers(f"rate({counter}[$__rate_interval])")


_FIRST_TOKEN = _quantiles(f"{_G}_time_to_first_token_seconds", _BY, _OF_MODEL, name=_NAME)
_SLOTS = f"max {_BY} ({_M}_slots{{{_OF_MODEL}}}) * on (namespace, model) max {_BY} ({_M}_pods_ready{{{_OF_MODEL}}})"
_AT_WORK = _of_servers("llamacpp:requests_processing")
_RESTARTS = f"increase({_M}_restarts_total{{{_OF_MODEL}}}[$__rate_interval])"
_NOT_READY = f'{_M}_condition{{{_OF_MODEL},type="Ready",status!="True"}}'
_CERTIFICATE_ENDS = f"max by (namespace) ({_O}_webhook_certificate_expiry_timestamp_seconds)"

OPERATOR = Dashboard(
    "llamamodel-operator",
    "LlamaModel operator",
    [
        (
            "LlamaModels",
            [
                Panel(
                    "By phase",
                    "",
                    [(f"sum by (phase) (max by (namespace, phase) ({_O}_models))", "{{phase}}")],
                    stacked=True,
                ),
                Panel("Leaders", "", [(f"sum by (namespace) ({_O}_leader)", "{{namespace}}")]),
                Panel(
                    "Webhook: days until its certificate ends",
                    "d",
                    [
                        (
                            f"({_CERTIFICATE_ENDS} - time()) / 86400 > 0",
                            "{{namespace}}",
                        ),
                    ],
                ),
            ],
        ),
        (
            "Work",
            [
                Panel("Passes", "ops", [(_rate(f"{_O}_reconciles_total", "by (result)"), "{{result}}")]),
                Panel("Duration of a pass", "s", _quantiles(f"{_O}_reconcile_seconds", "")),
                Panel("Models that wait", "", [(f"sum by (pod) ({_O}_queue_depth)", "{{pod}}")]),
                Panel(
                    "Longest wait and longest pass",
                    "s",
                    [
                        (f"max by (pod) ({_O}_queue_oldest_wait_seconds)", "wait {{pod}}"),
                        (f"max by (pod) ({_O}_longest_pass_seconds)", "pass {{pod}}"),
                    ],
                ),
                Panel("Webhook: reviews", "ops", [(_rate(f"{_O}_webhook_reviews_total", "by (result)"), "{{result}}")]),
                Panel("Webhook: duration of a review", "s", _quantiles(f"{_O}_webhook_review_seconds", "")),
            ],
        ),
        (
            "API server",
            [
                Panel(
                    "Writes",
                    "ops",
                    [(_rate(f"{_O}_api_writes_total", "by (kind, verb, status)"), "{{verb}} {{kind}} {{status}}")],
                ),
                Panel(
                    "Objects from watches",
                    "ops",
                    [(_rate(f"{_O}_watch_events_total", "by (resource)"), "{{resource}}")],
                ),
                Panel(
                    "Put back, and changes that no watch told of",
                    "",
                    [
                        (
                            f"sum by (kind) (increase({_O}_drift_repaired_total[$__rate_interval]))",
                            "put back: {{kind}}",
                        ),
                        (
                            f"sum by (resource) (increase({_O}_watch_missed_events_total[$__rate_interval]))",
                            "not told: {{resource}}",
                        ),
                    ],
                ),
            ],
        ),
        (
            "Process",
            [
                Panel(
                    "Memory",
                    "bytes",
                    [(f"process_resident_memory_bytes and on (namespace, pod) {_O}_leader", "{{pod}}")],
                ),
                Panel(
                    "CPU",
                    "",
                    [
                        (
                            f"rate(process_cpu_seconds_total[$__rate_interval]) and on (namespace, pod) {_O}_leader",
                            "{{pod}}",
                        ),
                    ],
                ),
                Panel("Lag of the event loop", "s", [(f"max by (pod) ({_O}_loop_lag_seconds)", "{{pod}}")]),
            ],
        ),
    ],
)

MODELS = Dashboard(
    "llamamodel-models",
    "LlamaModels",
    [
        (
            "State",
            [
                Panel(
                    "Phases",
                    "",
                    [(f"max by (namespace, model, phase) ({_M}_phase{{{_OF_MODEL}}})", f"{_NAME} {{{{phase}}}}")],
                ),
                Panel(
                    "Not ready, and why",
                    "",
                    [
                        (
                            f"max by (namespace, model, reason) ({_NOT_READY})",
                            "",
                        ),
                    ],
                    kind="table",
                ),
                Panel(
                    "Restarts of llama-server",
                    "",
                    [
                        (f"sum {_BY} (max by (namespace, model, pod) ({_RESTARTS}))", _NAME),
                    ],
                ),
            ],
        ),
        (
            "Load",
            [
                Panel(
                    "Slots at work",
                    "percentunit",
                    [
                        (
                            f"{_AT_WORK} / on (namespace, model) ({_SLOTS} > 0)",
                            _NAME,
                        ),
                    ],
                ),
                Panel(
                    "Slots",
                    "",
                    [
                        (_AT_WORK, f"{_NAME} at work"),
                        (
                            _SLOTS,
                            f"{_NAME} all",
                        ),
                    ],
                ),
                Panel(
                    "Requests that wait for a slot",
                    "",
                    [(_of_servers("llamacpp:requests_deferred"), _NAME)],
                ),
                Panel(
                    "Tokens generated per second",
                    "",
                    [(_rate_of_servers("llamacpp:tokens_predicted_total"), _NAME)],
                ),
                Panel(
                    "Tokens of prompts per second",
                    "",
                    [
                        (_rate_of_servers("llamacpp:prompt_tokens_total"), f"{_NAME} computed"),
                        (_rate_of_servers("llamacpp:prompt_tokens_cached_total"), f"{_NAME} from the cache"),
                    ],
                ),
                Panel(
                    "Speed of one stream, tokens per second",
                    "",
                    [
                        (
                            f"{_rate_of_servers('llamacpp:tokens_predicted_total')} / "
                            f"{_rate_of_servers('llamacpp:tokens_predicted_seconds_total')}",
                            _NAME,
                        ),
                    ],
                ),
                Panel(
                    "Slots per step, on average",
                    "",
                    [(_of_servers("llamacpp:n_busy_slots_per_decode", "avg"), _NAME)],
                ),
                Panel(
                    "Longest sequence of a slot, tokens",
                    "",
                    [(_of_servers("llamacpp:n_tokens_max", "max"), _NAME)],
                ),
                Panel(
                    "Drafted tokens that were accepted",
                    "percentunit",
                    [
                        (
                            f"{_rate_of_servers('llamacpp:spec_decode_num_accepted_tokens_total')} / "
                            f"{_rate_of_servers('llamacpp:spec_decode_num_draft_tokens_total')}",
                            _NAME,
                        ),
                    ],
                ),
            ],
        ),
        (
            "Through the gateway",
            [
                Panel(
                    "Time to first token",
                    "s",
                    _quantiles(f"{_G}_time_to_first_token_seconds", _BY, _OF_MODEL, name=_NAME),
                ),
                Panel(
                    "Time between tokens",
                    "s",
                    _quantiles(f"{_G}_time_between_tokens_seconds", _BY, _OF_MODEL, name=_NAME),
                ),
                Panel(
                    "Errors by code",
                    "reqps",
                    [
                        (
                            _rate(f"{_G}_requests_total", "by (namespace, model, code)", _OF_MODEL, 'code!=""'),
                            f"{_NAME} {{{{code}}}}",
                        ),
                    ],
                ),
            ],
        ),
        (
            "Memory",
            [
                Panel(
                    "Of each server: estimated, measured",
                    "bytes",
                    [
                        (_of_device(f"{_M}_memory_estimate_bytes"), f"{_NAME} {{{{device}}}} estimated"),
                        (_of_device(f"{_M}_memory_measured_bytes"), f"{_NAME} {{{{device}}}} measured"),
                    ],
                ),
                Panel(
                    "What the device has",
                    "bytes",
                    [(_of_device(f"{_M}_memory_available_bytes"), f"{_NAME} {{{{device}}}}")],
                ),
                Panel(
                    "Estimated divided by measured",
                    "percentunit",
                    [
                        (_of_device(f"{_O}_memory_estimate_ratio"), f"{_NAME} {{{{device}}}}"),
                    ],
                ),
            ],
        ),
    ],
    models_of=f"{_M}_phase",
)

GATEWAY = Dashboard(
    "llamamodel-gateway",
    "LlamaModel gateway",
    [
        (
            "Requests",
            [
                Panel("Requests", "reqps", [(_rate(f"{_G}_requests_total", _BY, _OF_MODEL), _NAME)], stacked=True),
                Panel(
                    "Requests by endpoint and status",
                    "reqps",
                    [
                        (_rate(f"{_G}_requests_total", "by (endpoint, status)", _OF_MODEL), "{{endpoint}} {{status}}"),
                    ],
                ),
                Panel("Errors by code", "reqps", [_by_code(f"{_G}_requests_total", 'code!=""')], stacked=True),
                Panel("In flight", "", [(f"sum {_BY} ({_G}_requests_in_flight{{{_OF_MODEL}}})", _NAME)], stacked=True),
                Panel("Duration of a request", "s", _quantiles(f"{_G}_request_seconds", _BY, _OF_MODEL, name=_NAME)),
                Panel("Time to first token", "s", _FIRST_TOKEN),
            ],
        ),
        (
            "Tokens",
            [
                Panel("Generated per second", "", [(_rate(f"{_G}_completion_tokens_total", _BY, _OF_MODEL), _NAME)]),
                Panel("Of prompts per second", "", [(_rate(f"{_G}_prompt_tokens_total", _BY, _OF_MODEL), _NAME)]),
                Panel(
                    "Of prompts, from a cache",
                    "percentunit",
                    [
                        (
                            f"{_rate(f'{_G}_cached_prompt_tokens_total', _BY, _OF_MODEL)} / "
                            f"{_rate(f'{_G}_prompt_tokens_total', _BY, _OF_MODEL)}",
                            _NAME,
                        ),
                    ],
                ),
            ],
        ),
        (
            "Pods",
            [
                Panel(
                    "Requests by pod",
                    "reqps",
                    [(_rate(f"{_G}_picks_total", "by (namespace, model, pod)", _OF_MODEL), f"{_NAME} {{{{pod}}}}")],
                ),
                Panel(
                    "Why a pod was picked", "reqps", [(_rate(f"{_G}_picks_total", "by (why)", _OF_MODEL), "{{why}}")]
                ),
                Panel("Sent again", "reqps", [(_rate(f"{_G}_retries_total", _BY, _OF_MODEL), _NAME)]),
                Panel("Wait for a model", "s", _quantiles(f"{_G}_wait_seconds", _BY, _OF_MODEL, name=_NAME)),
                Panel(
                    "Errors of servers that were translated",
                    "reqps",
                    [
                        _by_code(f"{_G}_translated_errors_total"),
                    ],
                ),
                Panel(
                    "Pods of the gateway that know the models, and how many",
                    "",
                    [
                        (f"sum({_G}_synced)", "pods"),
                        (f"max({_G}_models)", "models"),
                    ],
                ),
            ],
        ),
    ],
    models_of=f"{_G}_requests_in_flight",
)


def main() -> None:
    """Writes the files."""
    for name, dashboard in (("operator", OPERATOR), ("models", MODELS), ("gateway", GATEWAY)):
        text = json.dumps(dashboard.grafana(), indent=1, ensure_ascii=False)
        (_FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
