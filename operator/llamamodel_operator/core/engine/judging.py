"""What the checks of arguments share: what is known about the build, what was found so far, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.core.engine.catalogue import Flag, FlagState
from llamamodel_operator.core.engine.catalogues import CatalogueMatch, Catalogues
from llamamodel_operator.core.engine.masking import is_secret_flag
from llamamodel_operator.core.engine.policy import ArgumentPolicy, Reach, objection, risk_of
from llamamodel_operator.core.engine.suggestions import suggest
from llamamodel_operator.core.engine.values import expected_value
from llamamodel_operator.core.engine.words import shown

__all__ = ["ArgumentJudge"]

_MOST_SUGGESTIONS = 16
"""Unknown flags that are compared with the catalogue; each takes milliseconds."""

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc and Cs."""


@dataclass(kw_only=True)
class ArgumentJudge:
    """One run of the checks; collects what they find.

    Attributes:
        match: the catalogue of the build that will run.
        catalogues: all of them.
        managed: flags that the operator always sets, with what to do instead.
        typed: flags that typed fields render, with the path of the field.
        policy: what the cluster allows.
        mounts: folders of the pod's volumes.
        findings: what was found so far.
        will_not_start: why the server is known to refuse its command line.
    """

    match: CatalogueMatch
    catalogues: Catalogues
    managed: Mapping[str, str]
    typed: Mapping[str, str]
    policy: ArgumentPolicy
    mounts: Sequence[str]
    findings: list[Finding] = field(default_factory=list)
    will_not_start: str | None = None
    _places: dict[str, str] = field(default_factory=dict)
    _suggestions_left: int = _MOST_SUGGESTIONS

    def __post_init__(self) -> None:
        self._places.update((self._canonical(flag), place) for flag, place in self.typed.items())
        self.managed = {self._canonical(flag): instead for flag, instead in self.managed.items()}

    def check_text(self, place: str, text: str) -> None:
        """Control characters and halves of characters; no flag needs any, and some end or split an argument."""
        if bad := _NO_TEXT.search(text):
            self.add(
                Severity.ERROR,
                FindingCode.INVALID_FLAG_VALUE,
                place,
                f"{place} holds the character U+{ord(bad[0]):04X}; an argument is one line of plain text",
                "remove it; text of several lines has its own fields, such as spec.grammar and spec.chatTemplate",
            )

    def check_use(self, flag: Flag, spelling: str, place: str, *, values: Sequence[str] | None) -> bool:
        """Whether the flag may be given here at all; if so, its values are worth a look."""
        if instead := self.managed.get(flag.name):
            self.add(
                Severity.ERROR,
                FindingCode.MANAGED_FLAG,
                place,
                f"{spelling} is set by the operator; found it in {place}",
                instead,
            )
            return False
        if flag.state is FlagState.REMOVED:
            self.add_refusal(
                FindingCode.REMOVED_FLAG,
                place,
                f"{spelling} is no longer taken by {self.build_name()}; found it in {place}",
                f"use {flag.replacement}" if flag.replacement else f"remove {flag.name}",
                flag.name,
            )
            return False
        if forbidden := objection(flag, values, policy=self.policy, mounts=self.mounts):
            reason, instead = forbidden
            self.add(
                Severity.ERROR,
                FindingCode.FORBIDDEN_FLAG,
                place,
                f"{spelling} is not allowed: {reason}; found it in {place}",
                instead,
            )
            if (risk := risk_of(flag)) and risk.reach is Reach.EXIT:
                self.refuses(f"{spelling} in {place} makes llama-server end at once")
            return False
        if (first := self._places.get(flag.name)) and not flag.repeatable:
            self.add(
                Severity.ERROR,
                FindingCode.DUPLICATE_SETTING,
                place,
                f"{flag.name} is set twice: by {first} and by {place}, as {spelling}",
                f"keep one of {first} and {place}",
            )
        self._places.setdefault(flag.name, place)
        if flag.state is FlagState.WITHOUT_EFFECT:
            code, text = FindingCode.FLAG_WITHOUT_EFFECT, "is taken and ignored by"
        elif flag.state is FlagState.DEPRECATED:
            code, text = FindingCode.DEPRECATED_FLAG, "works, but is deprecated in"
        else:
            return True
        self.add(
            Severity.WARNING,
            code,
            place,
            f"{spelling} {text} {self.build_name()}; found it in {place}",
            f"use {flag.replacement}" if flag.replacement else f"remove {flag.name}",
        )
        return True

    def check_values(self, flag: Flag, spelling: str, values: Sequence[str], places: Sequence[str]) -> None:
        """Each value on its own."""
        for position, (value, place) in enumerate(zip(values, places, strict=True)):
            expected = expected_value(value, flag, position=position)
            if expected is None:
                continue
            found = "a secret" if is_secret_flag(spelling) else shown(value)
            self.add(
                self.error_if_known(flag.name),
                FindingCode.INVALID_FLAG_VALUE,
                place,
                f"{spelling} takes {expected}; found {found} in {place}",
                f"give {spelling} {expected}",
            )

    def _canonical(self, spelling: str) -> str:
        flag = self.match.find(spelling)
        return flag.name if flag else spelling

    def known(self, spelling: str) -> bool:
        """Whether what the catalogue says about a spelling, also that there is none, can be relied on."""
        return self.match.exact or self.match.agree(spelling)

    def error_if_known(self, spelling: str) -> Severity:
        """The severity of what the server refuses, going by the facts about a spelling."""
        return Severity.ERROR if self.known(spelling) else Severity.WARNING

    def build_name(self) -> str:
        """The build, for a message."""
        match = self.match
        if match.exact:
            return f"llama-server b{match.catalogue.build}"
        if match.build is None:
            return f"llama-server (build unknown, judged by b{match.catalogue.build})"
        return f"llama-server b{match.build} (judged by b{match.catalogue.build})"

    def flag_of_other_build(self, spelling: str) -> tuple[int, Flag] | None:
        """A flag that this build lacks, from the nearest build that has it, with the number of that build."""
        other = self.catalogues.nearest_with(spelling, self.match.build)
        flag = other.find(spelling) if other else None
        return (other.build, flag) if other and flag else None

    def suggest(self, spelling: str) -> tuple[str, ...]:
        """What may be meant; nothing after many of them, so that the time is bounded."""
        if self._suggestions_left <= 0:
            return ()
        self._suggestions_left -= 1
        return suggest(spelling, self.match.catalogue)

    def add_unknown(self, code: FindingCode, place: str, spelling: str, message: str, suggestion: str) -> None:
        """A flag that the build does not have: refused for certain, or only perhaps."""
        if self.known(spelling):
            severity = Severity.ERROR if self.policy.strict else Severity.WARNING
            message += "; this build refuses it and will not start"
            self.refuses(message)
        elif code is FindingCode.FLAG_OF_OTHER_BUILD:
            severity = Severity.INFO
            message += "; it is passed on"
        else:
            severity = Severity.ERROR if self.policy.strict else Severity.WARNING
            message += "; a build that does not know it will not start"
        self.add(severity, code, place, message, suggestion)

    def add_refusal(
        self, code: FindingCode, place: str, message: str, suggestion: str, spelling: str, *, certain: bool = False
    ) -> None:
        """What the server refuses: an error where the facts about the flag are known for this build."""
        if certain or self.known(spelling):
            self.refuses(message)
            self.add(Severity.ERROR, code, place, message, suggestion)
        else:
            self.add(Severity.WARNING, code, place, message, suggestion)

    def add_plain_secret(self, place: str, what: str) -> None:
        """A secret that everybody can read who can read the object."""
        self.add(
            Severity.WARNING,
            FindingCode.PLAIN_SECRET,
            place,
            f"the value of {what} stands in the manifest in plain text, in {place}",
            "put it into a Secret, and set the variable in spec.env with valueFrom.secretKeyRef",
        )

    def refuses(self, why: str) -> None:
        """Notes that the server will not start."""
        self.will_not_start = self.will_not_start or why

    def add(self, severity: Severity, code: FindingCode, place: str, message: str, suggestion: str) -> None:
        """Adds a finding."""
        self.findings.append(
            Finding(severity=severity, code=code, field=place, message=message[:4096], suggestion=suggestion[:1024])
        )
