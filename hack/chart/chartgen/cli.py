"""The command line, and which file is made from which."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from chartgen.schema import complete_schema
from chartgen.values import Value, ValuesError, documented, parse_values

__all__ = ["main"]

_ROOT = Path(__file__).parents[3]
_CHART = Path("charts/llamamodel-operator")
_CRD = Path("crds/llamamodels.yaml")
_KUBERNETES_TYPES = (
    Path("operator/llamamodel_operator/api/kubernetes_schemas.json"),
    Path("hack/chart/kubernetes_types.json"),
)
_BEGIN = "<!-- Generated from values.yaml by `make generate`. -->\n"
_END = "<!-- End of what is generated. -->\n"

_CRD_HEAD = """\
{{- /* Generated from crds/llamamodels.yaml by `make generate`. Do not edit. */ -}}
{{- if .Values.crds.enabled }}
"""
_CRD_METADATA = """\
  {{- $kept := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep }}
  {{- include "llamamodel-operator.annotations" (list $ $kept) }}
  labels:
    {{- include "llamamodel-operator.labels" . | nindent 4 }}
"""


def main() -> int:
    """Writes the files, or says which differ. Exit status: 0 done, 1 they differ or do not fit, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="hack/chart",
        description="Generates, in charts/llamamodel-operator: templates/crd.yaml and the schema of modelDefaults from"
        " crds/llamamodels.yaml; the descriptions and Kubernetes' types in values.schema.json, and the table of values"
        " in README.md, from the comments in values.yaml. Fails where values.yaml and its schema do not have the same"
        " keys.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file would change")
    arguments = parser.parse_args()
    try:
        generated = {path: text for path, text in _generate() if _read(path) != text}
    except ValuesError as error:
        print(f"hack/chart: {error}", file=sys.stderr)
        return 1
    for path, text in generated.items():
        print(f"{path}: {'not up to date, run `make generate`' if arguments.check else 'written'}")
        if not arguments.check:
            (_ROOT / path).write_text(text, encoding="utf-8")
    return 1 if arguments.check and generated else 0


def _generate() -> Iterator[tuple[Path, str]]:
    values = parse_values(_read(_CHART / "values.yaml"))
    yield _CHART / "templates" / "crd.yaml", crd_template(_read(_CRD))
    schema = complete_schema(
        json.loads(_read(_CHART / "values.schema.json")),
        values=values,
        kubernetes_types={
            name: schema for path in _KUBERNETES_TYPES for name, schema in json.loads(_read(path))["types"].items()
        },
        spec=_spec(_read(_CRD)),
    )
    yield _CHART / "values.schema.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    yield _CHART / "README.md", readme(_read(_CHART / "README.md"), values)


def _spec(crd: str) -> dict[str, Any]:
    """The schema of a LlamaModel's spec."""
    (version,) = yaml.safe_load(crd)["spec"]["versions"]
    spec: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def crd_template(crd: str) -> str:
    """The CRD as a template: with a switch, labels, and an annotation that keeps it; its own braces escaped."""
    body = "".join(line for line in crd.splitlines(keepends=True) if not line.startswith("#"))
    before, name, after = body.replace("{{", '{{ "{{" }}').partition("metadata:\n  name: llamamodels.llamamodel.dev\n")
    if not name or not after.startswith("spec:\n"):
        raise ValuesError(f"{_CRD}: expected metadata with nothing but the name, then spec")
    return _CRD_HEAD + before + name + _CRD_METADATA + after + "{{- end }}\n"


def readme(text: str, values: list[Value]) -> str:
    """The README with its table of values renewed."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValuesError(f"{_CHART / 'README.md'}: expected the lines {_BEGIN!r} and {_END!r}")
    return before + begin + "".join(_tables(values)) + "\n" + end + after


def _tables(values: list[Value]) -> Iterator[str]:
    group = None
    for value in documented(values):
        if value.group != group:
            group = value.group
            yield f"\n### {group}\n\n| value | default | |\n|---|---|---|\n"
        cells = (f"`{value.name}`", f"`{value.flow()}`", value.description)
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _read(path: Path) -> str:
    file = _ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
