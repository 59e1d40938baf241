"""What `llamamodel upgrade-check` prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from llamamodel_operator.cli.reporting import finding_lines, identity, title
from llamamodel_operator.cli.terminal import clean, json_text, paint
from llamamodel_operator.cli.upgrading import Upgrade, Verdict

__all__ = ["upgrades_json", "upgrades_text"]

_COLOURS = {Verdict.BREAKS: "error", Verdict.BROKEN: "error", Verdict.CHANGES: "warning", Verdict.SAME: "good"}
_WORDS = {
    Verdict.BREAKS: "would break",
    Verdict.BROKEN: "does not work now, and would not",
    Verdict.CHANGES: "would change",
    Verdict.SAME: "stays the same",
}


def upgrades_text(upgrades: Sequence[Upgrade], *, build: int) -> str:
    """The worst first, each with its reasons and with the flags that go and come."""
    order = list(Verdict)
    blocks = [_block(upgrade) for upgrade in sorted(upgrades, key=lambda upgrade: order.index(upgrade.verdict))]
    sums = _sums(upgrades)
    parts = [f"{sums[verdict.value]} {_WORDS[verdict]}" for verdict in Verdict if sums[verdict.value]]
    colour = "error" if sums[Verdict.BREAKS.value] else "good"
    return "\n".join([*blocks, paint(f"to b{build}: {', '.join(parts) or 'no LlamaModels'}", colour)])


def upgrades_json(upgrades: Sequence[Upgrade], *, build: int) -> str:
    """One object: models with their verdicts, and the sums."""
    return json_text(
        {
            "build": build,
            "models": [
                identity(upgrade.now.manifest)
                | {
                    "verdict": upgrade.verdict.value,
                    "reasons": upgrade.reasons,
                    "removed": [list(group) for sign, group in upgrade.difference if sign == "-"],
                    "added": [list(group) for sign, group in upgrade.difference if sign == "+"],
                    "findings": [finding.to_wire() for finding in upgrade.new_findings],
                }
                for upgrade in upgrades
            ],
            "summary": _sums(upgrades),
        }
    )


def _sums(upgrades: Sequence[Upgrade]) -> dict[str, int]:
    verdicts = [upgrade.verdict for upgrade in upgrades]
    return {verdict.value: verdicts.count(verdict) for verdict in Verdict}


def _block(upgrade: Upgrade) -> str:
    verdict = upgrade.verdict
    head = f"{title(upgrade.now.manifest)}  {paint(_WORDS[verdict], _COLOURS[verdict])}"
    return "\n".join([head, *_details(upgrade)])


def _details(upgrade: Upgrade) -> Iterator[str]:
    told = [f"{finding.field}: {finding.message}" for finding in upgrade.new_findings]
    for reason in upgrade.reasons:
        if not any(reason in text for text in told):
            yield f"  {paint('error  ', 'error')}  {clean(reason)}"
    if upgrade.new_findings:
        yield from finding_lines(upgrade.now.manifest, upgrade.new_findings)
    for sign, group in upgrade.difference if upgrade.then.plan else ():
        yield paint(f"  {sign} {clean(shlex.join(group))}", "error" if sign == "-" else "good")
