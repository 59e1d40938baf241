"""The page about what to do: a section for each reason, with the lines of logs that tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.guide import GUIDE
from llamamodel_operator.core.engine.diagnosis import shown_line
from llamamodel_operator.core.engine.telling_lines import REMEDIES, TELLING_LINES, TellingLine
from referencegen.errors import IncompleteSourceError
from referencegen.failures import PROVOKED, RECORDED
from referencegen.markdown import code, page, paragraph, prose, table
from referencegen.members import groups_of

__all__ = ["trouble_page"]

_LOOK = "The message has all: `kubectl describe lm NAME`."


def trouble_page() -> str:
    """Each reason."""
    parts = [
        paragraph(
            "Every reason that conditions and `status.lastFailure` of a LlamaModel can have: what it means, how to see"
            " it, what to do. NAME is the model, NAMESPACE its namespace."
        ),
        "```\nkubectl describe lm NAME                            # conditions, last failure, events\n"
        "kubectl logs -n NAMESPACE deploy/NAME --previous    # the whole log of the run that ended\n```",
        paragraph(
            "Where a server ends by itself, its log is read once, from the start and from the end, and the line that"
            " tells why is looked for; the tables below have those lines, without time and level. *Seen in* are the"
            " builds of llama.cpp that were made to write such a line."
        ),
    ]
    for group in groups_of(Reason):
        parts.append(f"## {group.title[:1].upper()}{group.title[1:]}")
        for member in group.members:
            parts += _section(Reason(member.value))
    parts.append("## How sure this is")
    parts.append(
        paragraph(
            "Failures are made to happen in a real cluster with a real llama-server (tests/e2e/test_failures.py): the"
            " reason must be right, come within seconds, touch no other model, and go when the fault is mended."
        )
    )
    parts.append(
        table(
            ("reason", "made to happen by"),
            [(f"[{reason}](#{reason.lower()})", prose(how)) for reason, how in PROVOKED.items()],
        )
    )
    parts.append(paragraph("Others are known from recorded logs and states alone:"))
    parts.append(
        table(
            ("reason", "known from"),
            [(f"[{reason}](#{reason.lower()})", prose(how)) for reason, how in RECORDED.items()],
        )
    )
    return page("Troubleshooting", parts)


def _section(reason: Reason) -> Iterator[str]:
    guide = GUIDE.get(reason)
    if guide is None:
        raise IncompleteSourceError(f"{reason}: no section; write one in api/guide.py")
    yield f"### {reason}"
    yield paragraph(f"**What it means:** {_sentence(guide.means)}")
    yield paragraph(f"**How to see it:** {_sentence(guide.look) if guide.look else _LOOK}")
    yield paragraph(f"**What to do:** {_sentence(guide.do) if guide.do else 'Nothing.'}")
    if lines := [line for line in TELLING_LINES if line.reason is reason]:
        yield _lines(lines)
        yield paragraph(f"The message then says: {_sentence(prose(REMEDIES[reason].format(field='FIELD')))}")


def _lines(lines: Sequence[TellingLine]) -> str:
    return table(
        ("a line such as", "means", "printed by", "seen in"),
        [
            (
                code(shown_line(line.example)),
                prose(line.cause.format(field="FIELD")),
                prose(line.where),
                ", ".join(f"b{build}" for build in line.builds) or "sources, reports",
            )
            for line in lines
        ],
    )


def _sentence(text: str) -> str:
    begun = text[:1].upper() + text[1:]
    return begun if begun.endswith(".") else f"{begun}."
