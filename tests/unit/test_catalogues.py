"""The catalogues that come with the operator say what each build takes, and how much of it can be relied on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from devcatalogue.errors import CatalogueError
from devcatalogue.facts import flag as facts_of
from devcatalogue.files import render
from devcatalogue.help_text import parse_help
from devcatalogue.history import with_removed
from devcatalogue.make import carry_again
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState, ValueType
from llamamodel_operator.core.engine.catalogues import Catalogues, parse_catalogue, shipped_catalogues

SHIPPED = shipped_catalogues()
BUILDS = SHIPPED.builds
LIVE, DEPRECATED, IGNORED, REMOVED = FlagState


@dataclass(frozen=True)
class Text:
    """Stands in for a file."""

    text: str

    def read_text(self, *, encoding: str) -> str:
        assert encoding == "utf-8"
        return self.text


def catalogues(*found: Catalogue) -> Catalogues:
    return Catalogues({catalogue.build: Text(render(catalogue)) for catalogue in found})


def a_catalogue(build: int, *flags: Flag) -> Catalogue:
    return Catalogue(build=build, source="a test", flags=flags)


CONTEXT = Flag(name="--ctx-size", aliases=("-c",), env="LLAMA_ARG_CTX_SIZE", arity=1, value_type=ValueType.INTEGER)
SLOTS = Flag(name="--slots", negations=("--no-slots",), env="LLAMA_ARG_ENDPOINT_SLOTS")
BARE = Flag(name="--flash-attn", aliases=("-fa",))
VALUED = replace(BARE, arity=1, value_type=ValueType.STRING, allowed=("on", "off", "auto"))


def test_there_are_catalogues_from_2024_to_today() -> None:
    assert len(BUILDS) >= 8
    assert list(BUILDS) == sorted(BUILDS)
    assert (BUILDS[0], BUILDS[-1]) == (4291, 11669)
    assert {10068, 10092, 10434} < set(BUILDS)


@pytest.fixture(params=BUILDS, ids=lambda build: f"b{build}")
def shipped(request: pytest.FixtureRequest) -> Catalogue:
    return SHIPPED.get(request.param)


def own(catalogue: Catalogue) -> Iterator[Flag]:
    return (flag for flag in catalogue.flags if not flag.carried)


class TestEachCatalogue:
    def test_is_of_the_build_that_its_file_names_and_says_where_it_comes_from(self, shipped: Catalogue) -> None:
        assert shipped.build in BUILDS
        assert shipped.source
        assert sum(1 for _ in own(shipped)) > 130
        assert len(shipped.chat_templates) > 25
        assert {"chatml", "llama3", "gemma"} <= shipped.chat_templates

    def test_has_no_spelling_twice(self, shipped: Catalogue) -> None:
        spellings = [spelling for flag in shipped.flags for spelling in flag.spellings]
        assert len(spellings) == len(set(spellings))

    def test_has_no_variable_twice(self, shipped: Catalogue) -> None:
        names = [name for flag in shipped.flags for name in (flag.env, flag.negative_env) if name]
        assert len(names) == len(set(names))

    def test_writes_every_flag_as_llama_server_does(self, shipped: Catalogue) -> None:
        for flag in shipped.flags:
            assert flag.name.startswith("--"), flag
            assert all(spelling.startswith("-") and " " not in spelling for spelling in flag.spellings), flag
            # llama-server reads _ as - in whatever begins with --, so that a name with _ could never be reached
            assert not any("_" in spelling for spelling in flag.spellings if spelling.startswith("--")), flag

    def test_has_a_type_for_every_value_and_for_nothing_else(self, shipped: Catalogue) -> None:
        for flag in shipped.flags:
            assert 0 <= flag.arity <= 2, flag
            assert (flag.value_type is None) == (flag.arity == 0), flag
            assert not (flag.arity and flag.negations), flag
            if flag.arity == 0:
                assert not flag.allowed, flag
                assert flag.default in (None, "enabled", "disabled"), flag
            if flag.words:
                assert flag.value_type is ValueType.INTEGER, flag

    def test_has_defaults_that_the_flag_itself_takes(self, shipped: Catalogue) -> None:
        for flag in shipped.flags:
            if flag.arity == 0 or flag.default is None:
                continue
            if flag.allowed:
                assert flag.default in flag.allowed, flag
            elif flag.value_type is ValueType.INTEGER and flag.default not in flag.words:
                int(flag.default)
            elif flag.value_type is ValueType.FLOAT:
                float(flag.default)

    def test_names_replacements_that_the_build_takes(self, shipped: Catalogue) -> None:
        for flag in shipped.flags:
            for replacement in (flag.replacement, flag.negated_replacement):
                if replacement is None:
                    continue
                assert flag.state is not LIVE, flag
                name, *values = replacement.split()
                other = shipped.find(name)
                assert other is not None, flag
                assert other.state is LIVE, flag
                assert len(values) == (other.arity if values else 0), flag
                assert not other.allowed or set(values) <= set(other.allowed), flag

    def test_carries_on_what_older_builds_had(self, shipped: Catalogue) -> None:
        position = BUILDS.index(shipped.build)
        older = SHIPPED.get(BUILDS[position - 1]) if position else None
        assert carry_again(shipped, older=older) == shipped
        assert all(flag.state is REMOVED for flag in shipped.flags if flag.carried)

    def test_survives_being_written_and_read(self, shipped: Catalogue) -> None:
        text = render(shipped)
        assert parse_catalogue(text) == shipped
        longest = max(text.splitlines(), key=len)
        assert len(longest) < 1000, "one flag a line"

    def test_holds_no_prose(self, shipped: Catalogue) -> None:
        for flag in shipped.flags:
            for text in (*flag.allowed, *flag.words, flag.default or ""):
                assert " " not in text, flag


def history(spelling: str) -> dict[int, tuple[object, ...]]:
    """What changed from build to build: state, arity, and what it is replaced by."""
    changes: dict[int, tuple[object, ...]] = {}
    last: tuple[object, ...] = ()
    for build in BUILDS:
        flag = SHIPPED.get(build).find(spelling)
        now = (flag.state, flag.arity, flag.replacement_of(spelling)) if flag else (None,)
        if now != last:
            changes[build] = last = now
    return changes


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("--flash-attn", {4291: (LIVE, 0, None), 6332: (LIVE, 1, None)}),
        ("-fa", {4291: (LIVE, 0, None), 6332: (LIVE, 1, None)}),
        ("--defrag-thold", {4291: (LIVE, 1, None), 6332: (IGNORED, 1, None)}),
        ("--lora-scaled", {4291: (LIVE, 2, None), 7631: (LIVE, 1, None)}),
        ("--log-verbose", {4291: (LIVE, 0, None)}),
        ("--log-colors", {4291: (LIVE, 0, None), 6957: (LIVE, 1, None)}),
        ("--load-mode", {4291: (None,), 10434: (LIVE, 1, None)}),
        (
            "--mlock",
            {
                4291: (LIVE, 0, None),
                10434: (DEPRECATED, 0, "--load-mode mlock"),
                11104: (REMOVED, 0, "--load-mode mlock"),
            },
        ),
        (
            "--no-mmap",
            {
                4291: (LIVE, 0, None),
                10434: (DEPRECATED, 0, "--load-mode none"),
                11104: (REMOVED, 0, "--load-mode none"),
            },
        ),
        (
            "--mmap",
            {
                4291: (None,),
                7631: (LIVE, 0, None),
                10434: (DEPRECATED, 0, "--load-mode mmap"),
                11104: (REMOVED, 0, "--load-mode mmap"),
            },
        ),
        ("--draft-max", {4291: (LIVE, 1, None), 9093: (REMOVED, 1, "--spec-draft-n-max")}),
        ("--draft-min", {4291: (LIVE, 1, None), 9093: (REMOVED, 1, "--spec-draft-n-min")}),
        ("--draft", {4291: (LIVE, 1, None), 9093: (REMOVED, 1, "--spec-draft-n-max")}),
        ("--spec-draft-n-max", {4291: (None,), 9093: (LIVE, 1, None)}),
        ("--model-draft", {4291: (LIVE, 1, None)}),
        ("--no-context-shift", {4291: (LIVE, 0, None)}),
        ("--fit", {4291: (None,), 7631: (LIVE, 1, None)}),
        ("--cache-ram", {4291: (None,), 6957: (LIVE, 1, None)}),
        ("--clear-idle", {4291: (None,), 8672: (LIVE, 0, None), 9093: (REMOVED, 0, "--cache-idle-slots")}),
        ("--flash-atten", {4291: (None,)}),
    ],
)
def test_the_history_that_bites_is_known(spelling: str, expected: dict[int, tuple[object, ...]]) -> None:
    assert history(spelling) == expected


def test_values_follow_the_build_too() -> None:
    def values(spelling: str, build: int) -> tuple[str, ...]:
        flag = SHIPPED.get(build).find(spelling)
        assert flag is not None
        return (*flag.allowed, *flag.words)

    assert values("--n-gpu-layers", 6332) == ()
    assert values("--n-gpu-layers", 7631) == ("auto", "all")
    assert values("--flash-attn", 6332) == ("on", "off", "auto", "enabled", "disabled")
    assert values("--flash-attn", 11669)[:3] == ("on", "off", "auto")
    assert "Q8_0" not in values("--cache-type-k", 11669)
    assert "q8_0" in values("--cache-type-k", 5481)
    assert values("--reasoning-format", 5481) == ("deepseek", "none")
    assert values("--load-mode", 10434) == ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")
    assert values("--pooling", 11669) == ("none", "mean", "cls", "last", "rank")
    assert values("--numa", 11669) == ("distribute", "isolate", "numactl")


def test_variables_follow_the_build_too() -> None:
    newest = SHIPPED.get(11669)
    assert (found := newest.find_env("LLAMA_ARG_CTX_SIZE"))
    assert found.name == "--ctx-size"
    assert (found := newest.find_env("LLAMA_ARG_NO_ENDPOINT_SLOTS"))
    assert found.name == "--slots"
    assert newest.find_env("LLAMA_ARG_MODEL_DRAFT") is None
    assert (older := SHIPPED.nearest_with_env("LLAMA_ARG_MODEL_DRAFT", 11669))
    assert older.build == 8672
    assert SHIPPED.nearest_with_env("LLAMA_ARG_NONSENSE", None) is None


class TestMatching:
    old = a_catalogue(100, CONTEXT, BARE)
    middle = a_catalogue(200, CONTEXT, VALUED)
    new = a_catalogue(300, CONTEXT, VALUED, SLOTS)
    all = catalogues(old, middle, new)

    @pytest.mark.parametrize(
        ("build", "render_with", "exact", "neighbours"),
        [
            (100, 100, True, [100]),
            (200, 200, True, [200]),
            (300, 300, True, [300]),
            (150, 100, False, [100, 200]),
            (299, 200, False, [200, 300]),
            (301, 300, False, [300]),
            (None, 300, False, [300]),
            (99, 100, False, [100]),
            (0, 100, False, [100]),
            (-1, 100, False, [100]),
        ],
    )
    def test_a_build_has_its_own_catalogue_or_neighbours(
        self, build: int | None, render_with: int, exact: bool, neighbours: Sequence[int]
    ) -> None:
        match = self.all.match(build)
        assert match.build == build
        assert match.catalogue.build == render_with
        assert match.exact is exact
        assert [catalogue.build for catalogue in match.neighbours] == neighbours

    @pytest.mark.parametrize(
        ("build", "spelling", "agreed"),
        [
            (200, "--flash-attn", True),
            (200, "--nonsense", True),
            (150, "-c", True),
            (150, "--nonsense", True),
            (150, "--flash-attn", False),
            (250, "--flash-attn", True),
            (250, "--no-slots", False),
            (301, "-c", False),
            (301, "--nonsense", False),
            (99, "-c", False),
            (None, "-c", False),
        ],
    )
    def test_only_an_exact_catalogue_or_two_neighbours_that_agree_can_be_relied_on(
        self, build: int | None, spelling: str, agreed: bool
    ) -> None:
        assert self.all.match(build).agree(spelling) is agreed

    def test_neighbours_agree_on_what_decides_and_not_on_names_defaults_or_hints(self) -> None:
        renamed = replace(CONTEXT, name="--context", aliases=("-c", "--ctx-size"), env="OTHER", default="7")
        gone = Flag(name="--old", state=REMOVED, replacement="--slots")
        match = catalogues(
            a_catalogue(1, CONTEXT, replace(gone, replacement=None)), a_catalogue(3, renamed, gone, SLOTS)
        ).match(2)
        assert match.agree("-c")
        assert match.agree("--old")
        assert not match.agree("--context")

    def test_a_spelling_that_turns_on_here_and_off_there_is_no_agreement(self) -> None:
        own_flag = Flag(name="--no-slots")
        assert not catalogues(a_catalogue(1, own_flag), a_catalogue(3, SLOTS)).match(2).agree("--no-slots")

    @pytest.mark.parametrize(
        ("spelling", "build", "found"),
        [
            ("--slots", 100, 300),
            ("-c", 160, 200),
            ("-c", 150, 200),
            ("-c", 140, 100),
            ("-c", None, 300),
            ("--none", 1, None),
        ],
    )
    def test_the_nearest_build_that_takes_a_flag_is_found(
        self, spelling: str, build: int | None, found: int | None
    ) -> None:
        catalogue = self.all.nearest_with(spelling, build)
        assert (catalogue.build if catalogue else None) == found

    def test_a_build_that_has_removed_a_flag_does_not_take_it(self) -> None:
        found = SHIPPED.nearest_with("--draft-max", 11669)
        assert found
        assert found.build == 8672

    def test_a_catalogue_is_read_when_it_is_asked_for(self) -> None:
        broken = Catalogues({1: Text("no JSON"), 2: Text(render(a_catalogue(2, CONTEXT)))})
        assert broken.match(None).find("-c") == CONTEXT
        with pytest.raises(json.JSONDecodeError):
            broken.get(1)
        with pytest.raises(KeyError):
            broken.get(3)

    def test_no_catalogue_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one build"):
            Catalogues({})


class TestCarryingOn:
    def test_each_spelling_that_is_gone_is_removed_and_those_that_live_on_replace_it(self) -> None:
        older = a_catalogue(1, replace(CONTEXT, aliases=("-c", "--context")), SLOTS, BARE)
        newer = with_removed(a_catalogue(2, CONTEXT), older=older)
        carried = {flag.name: flag for flag in newer.flags if flag.carried}
        assert set(carried) == {"--context", "--slots", "--flash-attn"}
        assert carried["--context"].replacement == "--ctx-size"
        assert carried["--context"].env is None
        assert carried["--slots"].negations == ("--no-slots",)
        assert carried["--flash-attn"].aliases == ("-fa",)
        assert newer.find("-c") == CONTEXT

    def test_a_flag_that_took_over_the_variable_replaces(self) -> None:
        older = a_catalogue(1, Flag(name="--webui", env="LLAMA_ARG_UI"))
        newer = with_removed(a_catalogue(2, Flag(name="--ui", env="LLAMA_ARG_UI")), older=older)
        found = newer.find("--webui")
        assert found
        assert found.replacement == "--ui"

    def test_what_is_removed_stays_removed_until_a_build_has_it_again(self) -> None:
        first = a_catalogue(1, BARE)
        second = with_removed(a_catalogue(2, CONTEXT), older=first)
        third = with_removed(a_catalogue(3, CONTEXT), older=second)
        fourth = with_removed(a_catalogue(4, VALUED, CONTEXT), older=third)
        assert third.find("-fa") == second.find("-fa")
        assert fourth.find("-fa") == VALUED


HELP_LINES = """\
----- common params -----

-c,    --ctx-size N                     size of something (default: 4096, 0 = as the model has it)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       a switch ('on', 'off', or 'auto', default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        a switch (default: enabled)
--no-host                               a switch of its own
--control-vector-layer-range START END
                                        two numbers
--numa TYPE                             ways
                                        - distribute: one
                                        - isolate: two
-dt,   --defrag-thold N                 something (DEPRECATED)
--mlock                                 DEPRECATED in favor of `--load-mode`: something
--lora FNAME                            a file
--temp N                                temperature (default: 0.80)
--draft-max N                           the argument has been removed. use --spec-draft-n-max or --other
--tensors <tensor name pattern>=<buffer type>,...
                                        pairs
"""
FILLER = "\n".join(f"--filler-{number} N                          a number" for number in range(50))


def test_a_help_text_is_read_for_its_facts() -> None:
    flags = {flag.name: flag for flag in map(facts_of, parse_help(HELP_LINES + FILLER))}
    assert flags["--ctx-size"] == replace(CONTEXT, default="4096")
    assert flags["--flash-attn"].allowed[:3] == ("on", "off", "auto")
    assert flags["--flash-attn"].default == "auto"
    assert flags["--kv-offload"] == Flag(
        name="--kv-offload", aliases=("-kvo",), negations=("-nkvo", "--no-kv-offload"), default="enabled"
    )
    assert flags["--no-host"] == Flag(name="--no-host")
    assert (flags["--control-vector-layer-range"].arity, flags["--tensors"].arity) == (2, 1)
    assert flags["--tensors"].value_type is ValueType.LIST
    assert flags["--numa"].allowed == ("distribute", "isolate")
    assert flags["--defrag-thold"].state is IGNORED
    assert (flags["--mlock"].state, flags["--mlock"].replacement) == (DEPRECATED, "--load-mode mlock")
    assert flags["--lora"].repeatable
    assert (flags["--temp"].value_type, flags["--temp"].default) == (ValueType.FLOAT, "0.80")
    assert (flags["--draft-max"].state, flags["--draft-max"].replacement) == (REMOVED, "--spec-draft-n-max")


def test_what_is_no_help_text_is_refused() -> None:
    with pytest.raises(CatalogueError, match="found 0 arguments"):
        parse_help("error: invalid argument: --help")


@settings(max_examples=50)
@given(st.text(alphabet=st.sampled_from("-—abcN ,[]()|<>'\n:."), max_size=400))
def test_no_help_text_is_too_odd(text: str) -> None:
    for entry in parse_help(text + "\n" + FILLER):
        facts_of(entry)
