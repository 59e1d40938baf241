"""Queries of Prometheus beside what was scraped: names of metrics, of labels, and of values that are known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

from llamamodel_operator.api.conditions import ConditionStatus, ConditionType, Reason
from llamamodel_operator.api.status import Phase

__all__ = ["Scraped", "metrics_of", "problems", "scraped"]

Scraped = Mapping[str, frozenset[str]]
"""The names of the labels that each metric has, by its name."""

_OF_TARGETS = frozenset(("namespace", "pod", "container", "job", "instance"))
"""What Prometheus itself adds to what it scrapes from a PodMonitor."""
_OF_SERVERS = frozenset(("service",))
"""What the PodMonitor of models adds."""
_VALUES = {
    "phase": {*Phase, "Unknown"},
    "reason": {*Reason},
    "result": {"ok", "refused", "error", "failed", "allowed", "warned", "skipped", "malformed"},
}
_VALUES_OF_CONDITIONS = {"status": {*ConditionStatus}, "type": {*ConditionType}}
_CONDITIONS = "llamamodel_operator_model_condition"


def scraped(*texts: str) -> Scraped:
    """What the answers of /metrics have; metrics without any series are none."""
    found: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # The parser adds `_total` to counters that have none, such as llamacpp:n_tokens_max.
                written = re.search(rf"^{re.escape(sample.name)}[ {{]", text, re.MULTILINE)
                name = sample.name if written else sample.name.removesuffix("_total")
                more = _OF_SERVERS if name.startswith("llamacpp:") else ()
                found.setdefault(name, set(_OF_TARGETS)).update(sample.labels, more)
    return {name: frozenset(labels) for name, labels in found.items()}


def metrics_of(query: str) -> set[str]:
    """The metrics that a query names."""
    return {str(selector.name) for selector in _selectors(promql_parser.parse(query))}


def problems(query: str, exported: Scraped) -> list[str]:
    """What cannot be right in a query; ValueError where it is none."""
    parsed = promql_parser.parse(query)
    return [*_in_selectors(parsed, exported), *_in_groupings(parsed, exported)]


def _in_selectors(parsed: Any, exported: Scraped) -> Iterator[str]:
    for selector in _selectors(parsed):
        name = selector.name
        if name not in exported:
            yield f"{name} is exported by nobody"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in exported[name]:
                yield f"{name} has no label {matcher.name}"
            known = {**_VALUES, **(_VALUES_OF_CONDITIONS if name == _CONDITIONS else {})}.get(matcher.name)
            if known is not None and re.fullmatch(r"[A-Za-z|]+", matcher.value):
                yield from (f"{name}: {matcher.name} is never {value}" for value in {*matcher.value.split("|")} - known)


def _in_groupings(parsed: Any, exported: Scraped) -> Iterator[str]:
    """Labels that results are grouped or matched by must come from a metric below."""
    for node in _nodes(parsed):
        modifier = getattr(node, "modifier", None)
        if modifier is None:
            continue
        matching = getattr(modifier, "matching", modifier)
        labels = {*(getattr(matching, "labels", None) or ()), *(getattr(modifier, "group_labels", None) or ())}
        below = frozenset[str]().union(*(exported.get(str(s.name), frozenset()) for s in _selectors(node)))
        yield from (f"no metric in {node.prettify().strip()} has the label {label}" for label in labels - below)


def _selectors(parsed: Any) -> Iterator[Any]:
    return (node for node in _nodes(parsed) if isinstance(node, promql_parser.VectorSelector))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for part in _parts(node):
        yield from _nodes(part)


def _parts(node: Any) -> Iterable[Any]:
    match node:
        case promql_parser.BinaryExpr():
            return (node.lhs, node.rhs)
        case promql_parser.Call():
            return tuple(node.args)
        case promql_parser.MatrixSelector():
            return (node.vector_selector,)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            return (node.expr,)
        case promql_parser.SubqueryExpr():
            return (node.expr,)
        case promql_parser.VectorSelector() | promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return ()
    raise TypeError(f"an expression of the unknown kind {type(node).__name__}")
