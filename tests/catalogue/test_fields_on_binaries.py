"""Every argv that specs make is accepted by the llama-server that it is made for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from devservers.fetch import Cache, cache_from_environment
from devservers.pins import SERVERS
from referencegen.effects import render

from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from support.generated_specs import GeneratedSpecs, full_spec, generate_specs

_SPECS = 220
_SEED = 20
_AT_ONCE = 2
_TRIES = 5
"""A server that ends at once may lose what it said last; one in a hundred runs of b10068 does."""
_MOUNTS = "/models/"
_PARSED = "loading model '"
"""What a server says when it has read its command line, and goes on to the model, which is not there."""


class Binary:
    """A llama-server whose command line parser is asked."""

    def __init__(self, name: str) -> None:
        server = SERVERS[name]
        cache = Cache(folder=cache_from_environment(), mirrors=(), say=print)
        build = cache.instead(server) or server.build
        self.program = cache.folder / f"b{build}" / "llama-server"
        if not self.program.exists():
            pytest.fail(f"{self.program} is not there; run `python3 hack/servers fetch {name}`")
        self.catalogue: Catalogue = shipped_catalogues().match(build).catalogue

    def refusal(self, spec: Mapping[str, Any], *, folder: Path) -> str | None:
        """What the binary says against the argv that a spec makes; None where it takes it."""
        words = list(_prepared(spec, self.catalogue, folder=folder))
        output = ""
        for _ in range(_TRIES):
            run = subprocess.run(
                [self.program, *words],
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=120,
            )
            output = run.stdout.decode(errors="replace")
            if _PARSED in output:
                return None
            if "\nerror" in f"\n{output}":  # said by the parser itself, which loses nothing
                break
        return f"{self.program.parent.name} refuses `{' '.join(words)}`: {output[:600]}"


def _prepared(spec: Mapping[str, Any], catalogue: Catalogue, *, folder: Path) -> Iterator[str]:
    """The words for a spec, with the texts and keys that the parser reads in place, and an address of its own."""
    rendered = render(spec, catalogue, folder=str(folder / "texts"))
    (folder / "texts").mkdir()
    for name, text in rendered.texts.files.items():
        (folder / "texts" / name).write_text(text, encoding="utf-8")
    flag = ""
    for word in rendered.words:
        if word.startswith(_MOUNTS):
            word = f"{folder}{word}"
            if flag in ("--chat-template-file", "--grammar-file"):
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                Path(word).write_text('root ::= "text"', encoding="utf-8")
        if flag == "--api-key-file":
            word = f"{folder}/api-keys"
            Path(word).write_text("key", encoding="utf-8")
        yield {"--host": "127.0.0.1", "--port": "0"}.get(flag, word)
        flag = word


@pytest.fixture(scope="module", params=sorted(SERVERS))
def binary(request: pytest.FixtureRequest) -> Binary:
    return Binary(request.param)


@pytest.fixture(scope="module")
def generated() -> GeneratedSpecs:
    return generate_specs(_SPECS, seed=_SEED)


def _refusals(binary: Binary, specs: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    folders = [folder / str(index) for index in range(len(specs))]
    for each in folders:
        each.mkdir()
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = pool.map(lambda spec, folder: binary.refusal(spec, folder=folder), specs, folders)
        return [refusal for refusal in found if refusal]


def test_every_field_is_in_at_least_five_of_the_specs(generated: GeneratedSpecs) -> None:
    assert len(generated.specs) >= 200
    assert {field: uses for field, uses in generated.uses.items() if uses < 5} == {}


def test_the_binary_takes_every_argv_that_specs_make(binary: Binary, generated: GeneratedSpecs, tmp_path: Path) -> None:
    refusals = _refusals(binary, generated.specs, tmp_path)
    assert not refusals, f"{len(refusals)} of {len(generated.specs)}, such as\n" + "\n".join(refusals[:3])


def test_the_binary_takes_the_argv_of_a_spec_with_every_field(binary: Binary, tmp_path: Path) -> None:
    assert not _refusals(binary, [full_spec()], tmp_path)


def test_the_binary_refuses_a_wrong_argv_so_that_taking_one_means_something(binary: Binary, tmp_path: Path) -> None:
    wrong = [
        {**full_spec(), "extraArgs": words}
        for words in (["--flash-atten"], ["--ctx-size", "many"], ["--draft"], ["stray"])
    ]
    assert len(_refusals(binary, wrong, tmp_path)) == len(wrong)
