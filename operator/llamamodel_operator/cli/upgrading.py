"""What another build of llama.cpp would mean for LlamaModels: which would break, which would change, which stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from llamamodel_operator.api.findings import Finding
from llamamodel_operator.cli.checking import Checked, Checker
from llamamodel_operator.cli.manifests import Manifest
from llamamodel_operator.cli.rendering import command_groups
from llamamodel_operator.core.engine.builds import build_of_image

__all__ = ["Upgrade", "Verdict", "check_upgrade"]


class Verdict(StrEnum):
    """What becomes of a LlamaModel."""

    BREAKS = "breaks"
    """It works now and would not."""
    BROKEN = "broken"
    """It does not work now, and would not."""
    CHANGES = "changes"
    """The command line would be another."""
    SAME = "same"
    """Nothing changes."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """One LlamaModel now and at the other build."""

    now: Checked
    then: Checked

    @property
    def verdict(self) -> Verdict:
        """What becomes of it."""
        if _reasons(self.then):
            return Verdict.BROKEN if _reasons(self.now) else Verdict.BREAKS
        return Verdict.SAME if _command(self.now) == _command(self.then) else Verdict.CHANGES

    @property
    def reasons(self) -> list[str]:
        """Why it would not work."""
        return _reasons(self.then)

    @property
    def new_findings(self) -> list[Finding]:
        """What is to be said at the other build alone."""
        told = {(finding.code, finding.field) for finding in self.now.findings}
        return [finding for finding in self.then.findings if (finding.code, finding.field) not in told]

    @property
    def difference(self) -> list[tuple[str, tuple[str, ...]]]:
        """Flags with their values that go (-) and come (+)."""
        return list(_difference(_command(self.now), _command(self.then)))


def check_upgrade(manifest: Manifest, build: int, checker: Checker) -> Upgrade:
    """Checks a LlamaModel as it is, and as if its image held another build and said so."""
    now = checker.check(manifest)
    if now.model is None:
        return Upgrade(now=now, then=now)
    image = checker.configuration.images.choose(now.model)
    spec: dict[str, Any] = {**manifest.raw["spec"]}
    engine = spec.get("engine")
    spec["engine"] = {**(engine if isinstance(engine, Mapping) else {}), "build": build}
    if build_of_image(image) is not None:
        spec["image"] = _tagged(image, build)
    # what a server of the present image said of itself says nothing of the other
    raw = {**manifest.raw, "spec": spec, "status": {}}
    return Upgrade(now=now, then=checker.check(Manifest(raw=raw, document=manifest.document)))


def _tagged(image: str, build: int) -> str:
    """The image with the other build in its tag, and without the digest, which would be another."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    return f"{name}:{re.sub(rf'(?<![a-z0-9])b{build_of_image(image)}(?![0-9a-z])', f'b{build}', tag)}"


def _reasons(checked: Checked) -> list[str]:
    reasons = [f"{finding.field}: {finding.message}" for finding in checked.errors]
    if checked.plan and checked.plan.will_not_start:
        reasons.append(checked.plan.will_not_start)
    return list(dict.fromkeys(reasons))


def _command(checked: Checked) -> Sequence[str]:
    return checked.plan.command if checked.plan else ()


def _difference(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    old, new = command_groups(before), command_groups(after)
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from (("-", group) for group in old[i:j])
            yield from (("+", group) for group in new[k:m])
