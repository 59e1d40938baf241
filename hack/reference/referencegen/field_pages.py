"""The pages about fields: what each takes, and which flag it is in which build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.api.status import LlamaModelStatus
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from referencegen.effects import VALUE, Effect, Row, builds_from_to, effect_table, minimal_command
from referencegen.examples import EXTRA_ARGS
from referencegen.markdown import anchor, bullet, code, listed, page, paragraph, prose, table
from referencegen.schema import Field, fields_of, walk
from referencegen.types import takes

__all__ = ["fields_page", "flags_page"]


def fields_page() -> str:
    """Every field of spec and status."""
    newest = shipped_catalogues().builds[-1]
    parts = [
        paragraph(
            f"A `{KIND}` is of `apiVersion: {API_VERSION}`. What stands here is also in the CRD: `kubectl explain"
            " llamamodel.spec`. Only `spec.model` is required. *Unset* says what holds where a field is left out,"
            " unless the operator's configuration has a default for it."
        ),
        paragraph(
            f"**Flag** is what the field is on the command line of b{newest}, the newest known build. Other builds"
            " have other flags for some: [flags.md](flags.md). What the status means: [../status.md](../status.md)."
        ),
    ]
    return page(
        f"Fields of a {KIND}", [*parts, *_sections("spec", LlamaModelSpec), *_sections("status", LlamaModelStatus)]
    )


def _sections(name: str, model: type[LlamaModelSpec | LlamaModelStatus]) -> Iterator[str]:
    top = fields_of(model)
    yield f"## {name}"
    yield paragraph(" ".join((model.__doc__ or "").split()))
    yield "\n".join(_item(name, field, short=field.path[-1]) for field in top)
    for field in top:
        if field.children:
            yield f"## {name}.{field.name}"
            yield paragraph(prose(field.description))
            below = list(walk(field.children))
            yield "\n".join(_item(name, each, short=".".join(each.path[1:])) for each in below)
            if rules := [rule for each in (field, *below) if each.children for rule in _rules_of_object(each)]:
                yield "Rules:"
                yield "\n".join(map(bullet, map(prose, dict.fromkeys(rules))))


def _rules_of_object(field: Field) -> tuple[str, ...]:
    items = field.schema.get("items", {}).get("x-kubernetes-validations", ())
    return (*field.rules, *(rule["message"] for rule in items))


def _item(top: str, field: Field, *, short: str) -> str:
    facts = "; ".join(_facts(top, field))
    if len(field.path) == 1 and field.children:
        heading = f"{top}.{field.name}"
        return bullet(f"**`{short}`**: {facts}, see [{heading}]({anchor(heading)})")
    return bullet(f"**`{short}`**: {facts}", below=prose(field.description))


def _facts(top: str, field: Field) -> Iterator[str]:
    if field.required:
        yield "required"
    kind = "object" if field.children and "items" not in field.schema else takes(field)
    yield kind
    default = field.schema.get("default")
    if isinstance(default, bool | int | str) and not field.required:
        yield f"default {code(json.dumps(default).strip(chr(34)))}"
    if top != "spec":
        return
    if flags := _newest_flags(field.name):
        yield f"flag {listed(flags)}"


def _newest_flags(name: str) -> Sequence[str]:
    """The flags that a field of a spec has to do with in the newest build."""
    if name == EXTRA_ARGS:
        return []
    effects = [row.effects[-1][2] for row in effect_table().get(name, ())]
    return list(dict.fromkeys(words[0] for found in effects for words in (*found.added, *found.removed)))


def flags_page() -> str:
    """Each field with its flag in each build."""
    builds = shipped_catalogues().builds
    parts = [
        paragraph(
            "How each field is written on the command line of llama-server, made from the table that the operator"
            f" itself uses, for the {len(builds)} builds whose flags it knows ([builds.md](builds.md))."
            f" `{VALUE}` stands for the field's value; file names and texts are examples."
        ),
        paragraph(
            "*Nothing*: that is how the build behaves anyway. *Not to be had*: the build has no flag for it; it is left"
            " out, and the finding `FieldUnsupported` says so ([findings.md](findings.md))."
        ),
        paragraph(
            "Only the builds that are named are known. A flag that differs between b6332 and b6957 may have changed in"
            " any build from b6333 on; builds in between get the flags of the known one before them."
        ),
        "## Without any field",
        "What a LlamaModel with nothing but `spec.model` gets:",
        table(
            ("builds", "command line"),
            [
                (builds_from_to(first, last), "<br>".join(code(" ".join(w)) for w in said))
                for first, last, said in minimal_command()
            ],
        ),
        "## Fields",
        table(
            ("field", "value", "builds", "command line"),
            [cells for name, rows in effect_table().items() for cells in _table_rows(name, rows)],
        ),
    ]
    return page("Fields as flags, build by build", parts)


def _table_rows(name: str, rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    for index, row in enumerate(rows):
        value = "any" if len(rows) == 1 and _any_value(row) else "<br>".join(code(_yaml(value)) for value in row.values)
        for position, (first, last, effect) in enumerate(row.effects):
            yield (
                code(name) if index == 0 and position == 0 else "",
                value if position == 0 else "",
                builds_from_to(first, last),
                _cell(effect),
            )


def _any_value(row: Row) -> bool:
    return any(VALUE in phrase for *_, effect in row.effects for phrase in effect.phrases()) or len(row.values) > 1


def _cell(effect: Effect) -> str:
    if effect.unsupported:
        return "not to be had"
    if not effect:
        return "nothing"
    said = [code(" ".join(words)) for words in effect.added]
    return "<br>".join(said + [f"no {code(words[0])}" for words in effect.removed])


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
