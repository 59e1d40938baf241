"""Findings as text for people, JSON for programs, annotations for GitHub workflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llamamodel_operator.api.findings import Finding, Severity, sentence
from llamamodel_operator.cli.checking import Checked
from llamamodel_operator.cli.documents import Problem
from llamamodel_operator.cli.manifests import Manifest
from llamamodel_operator.cli.terminal import clean, json_text, paint

__all__ = ["counts", "finding_lines", "github_text", "identity", "report_json", "report_text", "title"]

_WORDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def report_text(results: Sequence[Checked], problems: Sequence[Problem]) -> str:
    """All findings by object, then what could not be read, then a summary."""
    blocks = [
        "\n".join([title(result.manifest), *finding_lines(result.manifest, result.findings)]) for result in results
    ]
    blocks += [f"{paint('error', 'error', bold=True)}  {clean(str(problem))}" for problem in problems]
    return "\n".join([*blocks, _summary(results, problems)])


def title(manifest: Manifest) -> str:
    """One line that says which LlamaModel it is."""
    where = f"{clean(manifest.file)}:{manifest.line_of('')}: " if manifest.file else ""
    return paint(f"{where}{_full_name(manifest)}", "good", bold=True)


def _full_name(manifest: Manifest) -> str:
    name = clean(manifest.name)[:253] or "(no name)"
    return f"{clean(manifest.namespace)[:253]}/{name}" if manifest.namespace else name


def finding_lines(manifest: Manifest, findings: Sequence[Finding]) -> Iterator[str]:
    """Two lines for each finding: where and what; what to do."""
    if not findings:
        yield f"  {paint('fine', 'good')}"
    for finding in findings:
        word = paint(f"{_WORDS[finding.severity]:7}", finding.severity.value)
        line = manifest.line_of(finding.field)
        where = f"line {line}, " if line else ""
        code = paint(f"[{finding.code.value}]", "dim")
        yield f"  {word}  {where}{clean(finding.field)}: {clean(finding.message)} {code}"
        if finding.suggestion:
            yield f"           {clean(finding.suggestion)}"


def report_json(results: Sequence[Checked], problems: Sequence[Problem]) -> str:
    """One object: models with their findings, problems with files, the sums."""
    return json_text(
        {
            "models": [
                identity(result.manifest)
                | {"findings": [_finding(result.manifest, finding) for finding in result.findings]}
                for result in results
            ],
            "problems": [
                {"file": problem.file, "line": problem.line, "message": problem.message} for problem in problems
            ],
            "summary": counts(results, problems),
        }
    )


def identity(manifest: Manifest) -> dict[str, Any]:
    """Which LlamaModel it is, for JSON."""
    return {
        "name": manifest.name,
        "namespace": manifest.namespace,
        "file": manifest.file or None,
        "line": manifest.line_of(""),
    }


def github_text(results: Sequence[Checked], problems: Sequence[Problem]) -> str:
    """A workflow command for each finding, which GitHub shows at the line of the file."""
    lines = [
        _annotation(
            _GITHUB[finding.severity],
            file=result.manifest.file,
            line=result.manifest.line_of(finding.field),
            title=f"{finding.code.value} in {_full_name(result.manifest)}",
            text=sentence(finding),
        )
        for result in results
        for finding in result.findings
    ]
    lines += [
        _annotation("error", file=problem.file, line=problem.line, title="Unreadable", text=problem.message)
        for problem in problems
    ]
    return "\n".join(lines)


def counts(results: Sequence[Checked], problems: Sequence[Problem]) -> dict[str, int]:
    """How many there are of each."""
    findings = [finding for result in results for finding in result.findings]
    return {
        "models": len(results),
        "errors": sum(finding.severity is Severity.ERROR for finding in findings),
        "warnings": sum(finding.severity is Severity.WARNING for finding in findings),
        "notes": sum(finding.severity is Severity.INFO for finding in findings),
        "problems": len(problems),
    }


def _finding(manifest: Manifest, finding: Finding) -> dict[str, Any]:
    return {**finding.to_wire(), "line": manifest.line_of(finding.field)}


def _summary(results: Sequence[Checked], problems: Sequence[Problem]) -> str:
    sums = counts(results, problems)
    names = {"errors": "error", "warnings": "warning", "notes": "note", "problems": "unreadable part"}
    parts = [_number(sums[key], word) for key, word in names.items() if sums[key] or key == "errors"]
    colour = "error" if sums["errors"] or problems else "warning" if sums["warnings"] else "good"
    return paint(f"{_number(sums['models'], 'LlamaModel')}: {', '.join(parts)}", colour)


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count or 'no'} {word}s"


def _annotation(kind: str, *, file: str, line: int | None, title: str, text: str) -> str:
    """GitHub's workflow commands: docs.github.com, Workflow commands for GitHub Actions."""
    properties = {"file": file, "line": str(line or 1), "title": clean(title)[:200]}
    written = ",".join(f"{key}={_escaped(value, more=':,')}" for key, value in properties.items())
    return f"::{kind} {written}::{_escaped(clean(text))}"


def _escaped(text: str, *, more: str = "") -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for char in more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
