"""The command line, and which file is made of what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from referencegen.build_page import builds_page
from referencegen.errors import IncompleteSourceError
from referencegen.field_pages import fields_page, flags_page
from referencegen.finding_pages import conditions_page, findings_page
from referencegen.gateway_page import gateway_page
from referencegen.markdown import page, table
from referencegen.trouble_page import trouble_page

__all__ = ["main", "pages"]

_ROOT = Path(__file__).parents[3]
_FOLDER = Path("docs/reference")


def main() -> int:
    """Writes the files, or says which differ. Exit status: 0 done, 1 they differ or cannot be made, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="hack/reference",
        description=f"Generates {_FOLDER}: fields, flags, findings, conditions, builds and the gateway's errors,"
        " from the types in api/, the settings, the flag catalogues and core/; and docs/troubleshooting.md beside it.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file would change")
    check = parser.parse_args().check
    try:
        made = {_FOLDER / name: text for name, text in pages()}
    except IncompleteSourceError as error:
        print(f"hack/reference: {error}", file=sys.stderr)
        return 1
    changed = {path: text for path, text in made.items() if _read(path) != text}
    (_ROOT / _FOLDER).mkdir(parents=True, exist_ok=True)
    for path, text in changed.items():
        print(f"{path}: {'not up to date, run `make generate`' if check else 'written'}")
        if not check:
            (_ROOT / path).write_text(text, encoding="utf-8")
    return 1 if check and changed else 0


def pages() -> Iterator[tuple[str, str]]:
    """Each file's name, relative to the folder, and content."""
    yield (
        "README.md",
        page(
            "Reference",
            [
                "Made from the sources that the operator itself uses, so it says what this version does.",
                table(
                    ("page", ""),
                    [
                        ("[fields.md](fields.md)", "every field of a LlamaModel: what it takes, what it does"),
                        ("[flags.md](flags.md)", "which flag of llama-server each field is, build by build"),
                        ("[findings.md](findings.md)", "what checks say before anything runs"),
                        ("[conditions.md](conditions.md)", "condition types and reasons"),
                        ("[../troubleshooting.md](../troubleshooting.md)", "every reason: what it means, what to do"),
                        ("[builds.md](builds.md)", "the builds of llama.cpp whose flags are known, and what changed"),
                        (
                            "[gateway-errors.md](gateway-errors.md)",
                            "what llama-server says, and what clients read of it",
                        ),
                    ],
                ),
            ],
        ),
    )
    yield "fields.md", fields_page()
    yield "flags.md", flags_page()
    yield "findings.md", findings_page()
    yield "conditions.md", conditions_page()
    yield "builds.md", builds_page()
    yield "gateway-errors.md", gateway_page()
    yield "../troubleshooting.md", trouble_page()


def _read(path: Path) -> str:
    file = _ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
