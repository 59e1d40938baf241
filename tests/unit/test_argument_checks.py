"""What a manifest adds to the command line: spec.extraArgs and spec.env, against the build that will run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.core.engine.arguments import ArgumentReport, check_arguments
from llamamodel_operator.core.engine.catalogue import Flag, FlagState, ValueType
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.conflicts import ModelFacts, check_combinations
from llamamodel_operator.core.engine.managed import MANAGED_FLAGS
from llamamodel_operator.core.engine.masking import MASK, is_secret_flag, is_secret_variable, mask_command
from llamamodel_operator.core.engine.policy import HARMLESS, RISKS, ArgumentPolicy, Reach, risk_of

CATALOGUES = shipped_catalogues()
EXACT, OLD, BETWEEN_TWO = 11669, 10068, 9000
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
UNSAFE = ArgumentPolicy(allow_unsafe=frozenset({"--rpc", "--log-file"}))

Env = Sequence[Mapping[str, Any]]


def check(
    args: Sequence[str],
    env: Env = (),
    *,
    build: int | None = EXACT,
    typed: Mapping[str, str] | None = None,
    policy: ArgumentPolicy | None = None,
) -> ArgumentReport:
    return check_arguments(
        args,
        env,
        match=CATALOGUES.match(build),
        catalogues=CATALOGUES,
        managed=MANAGED_FLAGS,
        typed=typed or {},
        policy=policy or ArgumentPolicy(),
        mounts=("/models", "/lora"),
    )


def brief(findings: Sequence[Finding]) -> list[tuple[Severity, FindingCode, str]]:
    return [(finding.severity, finding.code, finding.field) for finding in findings]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--top-n-sigma", "1.5"],
        ["--top_n_sigma", "1.5"],
        ["--seed", "-1", "--temp", ".5", "--min-p", "5e-2"],
        ["-ngl", "all"],
        ["--n-gpu-layers", "99"],
        ["--flash-attn", "auto"],
        ["-fa", "1"],
        ["--no-warmup", "--no-slots", "--special"],
        ["--spec-type", "ngram-mod,ngram-cache"],
        ["--tensor-split", "3,1", "-ot", "exps=CPU", "-ot", "attn=CPU"],
        ["--cpu-range", "0-7", "--cpu-mask", "0xff"],
        ["--override-kv", "tokenizer.ggml.add_bos_token=bool:false"],
        ["--logit-bias", "15043+1", "--logit-bias", "15043-inf"],
        ["--chat-template-kwargs", '{"enable_thinking": false}'],
        ["--lora-scaled", "/lora/a.gguf:0.5,/lora/b.gguf:1"],
        ["--slot-save-path", "/tmp", "--log-file", "/tmp/logs/a"],
        ["--reverse-prompt", "---", "--reverse-prompt", "user:"],
        ["--tags", "-1"],
    ],
)
def test_what_the_build_takes_is_passed_on_without_a_word(args: list[str]) -> None:
    assert check(args) == ArgumentReport(findings=())


@pytest.mark.parametrize(
    ("args", "build", "severity", "code", "field", "says", "suggests"),
    [
        (["--flash-atten", "on"], EXACT, WARNING, "UnknownFlag", 0, "b11669.*not start", "mean --flash-attn"),
        (["--flash-atten", "on"], BETWEEN_TWO, WARNING, "UnknownFlag", 0, "will not start", "--flash-attn"),
        (["--flash-atten", "on"], None, WARNING, "UnknownFlag", 0, "build unknown", "--flash-attn"),
        (["--load-mode", "mlock"], OLD, WARNING, "FlagOfOtherBuild", 0, "not of.*b10068.*not start", "b1"),
        (["--draft-max", "8"], EXACT, ERROR, "RemovedFlag", 0, "no longer.*b11669", "--spec-draft-n-max"),
        (["--mlock"], EXACT, ERROR, "RemovedFlag", 0, "no longer", "use --load-mode mlock"),
        (["--mlock"], 10434, WARNING, "DeprecatedFlag", 0, "deprecated in llama-server b10434", "--load-mode"),
        (["--defrag-thold", "0.1"], EXACT, WARNING, "FlagWithoutEffect", 0, "taken and ignored", "remove"),
        (["-ngl", "many"], EXACT, ERROR, "InvalidFlagValue", 1, 'auto, all; found "many"', "give -ngl"),
        (["-ngl", "many"], None, WARNING, "InvalidFlagValue", 1, "found", "whole number"),
        (["--top-k", "8k"], EXACT, ERROR, "InvalidFlagValue", 1, 'a whole number; found "8k"', "whole number"),
        (["--top-k", "1.5"], EXACT, ERROR, "InvalidFlagValue", 1, "a whole number", "whole number"),
        (["--top-k", ""], EXACT, ERROR, "InvalidFlagValue", 1, "a whole number", "whole number"),
        (["--top-k", "\u0663"], EXACT, ERROR, "InvalidFlagValue", 1, "a whole number", "whole number"),
        (["--top-k", "3000000000"], EXACT, ERROR, "InvalidFlagValue", 1, "a whole number", "whole number"),
        (["--top-k", "9" * 10_000], EXACT, ERROR, "InvalidFlagValue", 1, "a whole number", "whole number"),
        (["--temp", "warm"], EXACT, ERROR, "InvalidFlagValue", 1, "a finite number", "finite number"),
        (["--temp", "nan"], EXACT, ERROR, "InvalidFlagValue", 1, "a finite number", "finite number"),
        (["--temp", "1e99"], EXACT, ERROR, "InvalidFlagValue", 1, "a finite number", "finite number"),
        (["--flash-attn", "ON"], EXACT, ERROR, "InvalidFlagValue", 1, "one of on, off, auto", "one of"),
        (["--cache-type-k", "Q8_0"], EXACT, ERROR, "InvalidFlagValue", 1, "one of f32", "one of"),
        (["--spec-type", "ngram-mod,foo"], EXACT, ERROR, "InvalidFlagValue", 1, "one or more of", "commas"),
        (["--tensor-split", "3,a"], EXACT, ERROR, "InvalidFlagValue", 1, "such as 3,1", "3,1"),
        (["--cpu-range", "7"], EXACT, ERROR, "InvalidFlagValue", 1, "range of CPUs", "0-7"),
        (["--logit-bias", "5"], EXACT, ERROR, "InvalidFlagValue", 1, "a sign and a number", "15043"),
        (["--chat-template-kwargs", "[" * 100_000], EXACT, ERROR, "InvalidFlagValue", 1, "a JSON object", "JSON"),
        (["--lora-scaled", "/lora/a"], EXACT, ERROR, "InvalidFlagValue", 1, "FILE:SCALE", "FILE:SCALE"),
        (["--ctx-size"], EXACT, ERROR, "WrongArity", 0, "needs a value; found the end of spec.extraArgs", "next item"),
        (["--ctx-size", "--special"], EXACT, ERROR, "WrongArity", 0, "found the flag --special", "next item"),
        (["--special", "yes"], EXACT, ERROR, "WrongArity", 1, "--special takes no value", 'remove "yes"'),
        (["--top-k", "5", "6"], EXACT, ERROR, "WrongArity", 2, "--top-k takes one value", 'remove "6"'),
        (["flash-attn"], EXACT, ERROR, "WrongArity", 0, "is no flag", "did you mean --flash-attn"),
        (["--special", "-1"], EXACT, ERROR, "WrongArity", 1, '"-1".*left over', "remove"),
        (["--top-k=5"], EXACT, ERROR, "WrongArity", 0, "in one word", "two items of the list"),
        (["--top-k 5"], EXACT, ERROR, "WrongArity", 0, "in one word", "two items of the list"),
        (["--model", "/models/a"], EXACT, ERROR, "ManagedFlag", 0, "set by the operator", "use spec.model"),
        (["-a", "x"], EXACT, ERROR, "ManagedFlag", 0, "set by the operator", "spec.servedModelName"),
        (["--port", "1"], EXACT, ERROR, "ManagedFlag", 0, "set by the operator", "one fixed port"),
        (["--api-prefix", "/x"], EXACT, ERROR, "ManagedFlag", 0, "set by the operator", "plain paths"),
        (["-s", "1", "--seed", "2"], EXACT, ERROR, "DuplicateSetting", 2, r"by spec.extraArgs\[0\] and by", "keep one"),
        (["--jinja", "--no-jinja"], EXACT, ERROR, "DuplicateSetting", 1, "--jinja is set twice", "keep one"),
        (["--version"], EXACT, ERROR, "ForbiddenFlag", 0, "print something and end", "remove --version"),
        (["--rpc", "10.0.0.1:50052"], EXACT, ERROR, "ForbiddenFlag", 0, "other machines", "allow --rpc"),
        (["-hf", "a/b"], EXACT, ERROR, "ForbiddenFlag", 0, "downloads", "allow --hf-repo"),
        (["--gpt-oss-20b-default"], EXACT, ERROR, "ForbiddenFlag", 0, "downloads", "allow"),
        (["--tools", "all"], EXACT, ERROR, "ForbiddenFlag", 0, "run programs", "allow --tools"),
        (["--agent"], EXACT, ERROR, "ForbiddenFlag", 0, "run programs", "allow --agent"),
        (["--ssl-key-file", "/models/k"], EXACT, ERROR, "ForbiddenFlag", 0, "plain HTTP", "allow"),
        (["--log-file", "/etc/passwd"], EXACT, ERROR, "ForbiddenFlag", 0, '"/etc/passwd"', "/tmp, /models, /lora"),
        (["--log-file", "/tmp/../etc/x"], EXACT, ERROR, "ForbiddenFlag", 0, "does not lie", "absolute path"),
        (["--log-file", "logs/x"], EXACT, ERROR, "ForbiddenFlag", 0, "does not lie", "absolute path"),
        (["--log-file", "/modelsx/y"], EXACT, ERROR, "ForbiddenFlag", 0, "does not lie", "absolute path"),
        (["--lora", "/lora/a,/etc/b"], EXACT, ERROR, "ForbiddenFlag", 0, '"/etc/b" does not lie', "absolute path"),
        (["--lora-scaled", "/etc/b:1"], EXACT, ERROR, "ForbiddenFlag", 0, '"/etc/b" does not lie', "absolute path"),
        (["--lora-scaled", "/etc/b", "1"], 5481, ERROR, "ForbiddenFlag", 0, '"/etc/b" does not lie', "absolute path"),
        (["--tags", "a\x00b"], EXACT, ERROR, "InvalidFlagValue", 1, r"character U\+0000", "remove it"),
        (["--tags", "a\nb"], EXACT, ERROR, "InvalidFlagValue", 1, r"character U\+000A", "remove it"),
        (["--tags", "a\ud800"], EXACT, ERROR, "InvalidFlagValue", 1, r"character U\+D800", "remove it"),
        (["--api-key", "geheim"], EXACT, WARNING, "PlainSecret", 0, "plain text", "secretKeyRef"),
    ],
)  # fmt: skip
def test_a_finding_says_what_was_found_where_and_what_to_do(
    args: list[str], build: int | None, severity: Severity, code: str, field: int, says: str, suggests: str
) -> None:
    (finding,) = check(args, build=build).findings
    assert brief([finding]) == [(severity, FindingCode(code), f"spec.extraArgs[{field}]")]
    assert re.search(says, finding.message), finding.message
    assert suggests in (finding.suggestion or "")
    assert "spec.extraArgs[" in finding.message
    assert "geheim" not in finding.message


def test_what_the_server_refuses_for_certain_is_reported_as_not_starting() -> None:
    assert "--flash-atten is no flag of llama-server b11669" in (check(["--flash-atten"]).will_not_start or "")
    assert "--load-mode" in (check(["--load-mode", "mmap"], build=OLD).will_not_start or "")
    assert "--draft-max" in (check(["--draft-max", "8"]).will_not_start or "")
    assert "end at once" in (check(["--help"]).will_not_start or "")


@pytest.mark.parametrize("build", [None, 1, 99_999])
def test_without_an_exact_catalogue_or_two_that_agree_nothing_is_certain(build: int | None) -> None:
    report = check(["--flash-atten", "on", "-ngl", "many", "--ctx-size"], build=build)
    assert [finding.severity for finding in report.findings] == [WARNING] * 3
    assert report.will_not_start is None


def test_a_flag_of_another_build_is_a_hint_where_this_one_is_not_known() -> None:
    report = check(["--load-mode", "mmap"], build=1)
    assert brief(report.findings) == [(INFO, FindingCode.FLAG_OF_OTHER_BUILD, "spec.extraArgs[0]")]
    assert report.will_not_start is None


def test_two_neighbours_that_do_not_agree_are_no_ground_for_an_error() -> None:
    # b10434 takes --mlock, b11669 does not, and so do those between; from when on is not known for b10500
    between = next(
        build
        for build in range(OLD, EXACT)
        if not CATALOGUES.match(build).exact and not CATALOGUES.match(build).agree("--mlock")
    )
    assert all(finding.severity is WARNING for finding in check(["--mlock"], build=between).findings)


def test_a_known_neighbour_is_enough_where_both_say_the_same() -> None:
    assert CATALOGUES.match(BETWEEN_TWO).exact is False
    report = check(["-ngl", "many"], build=BETWEEN_TWO)
    assert brief(report.findings) == [(ERROR, FindingCode.INVALID_FLAG_VALUE, "spec.extraArgs[1]")]


def test_the_same_manifest_is_right_for_one_build_and_wrong_for_another() -> None:
    assert check(["--draft-max", "8"], build=5481).findings == ()
    assert brief(check(["--draft-max", "8"]).findings) == [(ERROR, FindingCode.REMOVED_FLAG, "spec.extraArgs[0]")]
    assert check(["-fa"], build=5481).findings == ()
    assert brief(check(["-fa"]).findings) == [(ERROR, FindingCode.WRONG_ARITY, "spec.extraArgs[0]")]
    assert check(["--lora-scaled", "/lora/a", "0.5"], build=5481).findings == ()


def test_a_strict_cluster_refuses_flags_that_no_catalogue_has() -> None:
    strict = ArgumentPolicy(strict=True)
    for build in (EXACT, None):
        assert [f.severity for f in check(["--quux"], build=build, policy=strict).findings] == [ERROR]


def test_dashes_alone_do_not_hide_a_wrong_value() -> None:
    assert brief(check(["--ngl", "many"]).findings) == [
        (WARNING, FindingCode.UNKNOWN_FLAG, "spec.extraArgs[0]"),
        (ERROR, FindingCode.INVALID_FLAG_VALUE, "spec.extraArgs[1]"),
    ]


def test_a_setting_that_a_typed_field_makes_is_named_with_both_places() -> None:
    report = check(["-c", "4096"], typed={"--ctx-size": "spec.engine.contextSize"})
    assert brief(report.findings) == [(ERROR, FindingCode.DUPLICATE_SETTING, "spec.extraArgs[0]")]
    assert "by spec.engine.contextSize and by spec.extraArgs[0], as -c" in report.findings[0].message


def test_a_flag_whose_field_is_unset_needs_no_word() -> None:
    assert check(["-c", "4096"], typed={"--parallel": "spec.engine.parallelSlots"}).findings == ()


def test_what_the_cluster_allows_is_passed_on() -> None:
    assert check(["--rpc", "a:1", "--log-file", "/var/log/x"], policy=UNSAFE).findings == ()


def test_an_alias_allows_its_flag_and_nothing_allows_to_exit() -> None:
    policy = ArgumentPolicy(allow_unsafe=frozenset({"-hfr", "--version"}))
    assert brief(check(["--hf-repo", "a/b", "--version"], policy=policy).findings) == [
        (ERROR, FindingCode.FORBIDDEN_FLAG, "spec.extraArgs[2]")
    ]


@pytest.mark.parametrize(
    ("variable", "build", "severity", "code", "says"),
    [
        ({"name": "LLAMA_ARG_CTX_SIZE", "value": "8k"}, EXACT, ERROR, "InvalidFlagValue", "a whole number"),
        ({"name": "LLAMA_ARG_CTX_SIZE"}, EXACT, ERROR, "InvalidFlagValue", 'found ""'),
        ({"name": "LLAMA_ARG_JINJA", "value": "yes"}, EXACT, ERROR, "InvalidFlagValue", "takes true or false"),
        ({"name": "LLAMA_ARG_NO_JINJA", "value": "0"}, EXACT, WARNING, "InvalidFlagValue", "off whatever its value"),
        ({"name": "LLAMA_ARG_MODEL", "value": "/a"}, EXACT, ERROR, "ManagedFlag", "set by the operator"),
        ({"name": "LLAMA_ARG_PORT", "valueFrom": {"fieldRef": {}}}, EXACT, ERROR, "ManagedFlag", "set by the operator"),
        ({"name": "LLAMA_ARG_FLASH_ATTEN", "value": "on"}, EXACT, WARNING, "UnknownFlag", "sets nothing"),
        ({"name": "LLAMA_ARG_MLOCK", "value": "1"}, EXACT, ERROR, "RemovedFlag", "sets nothing.*any more"),
        ({"name": "LLAMA_ARG_DRAFT_MAX", "value": "8"}, EXACT, ERROR, "RemovedFlag", "no longer taken"),
        ({"name": "LLAMA_ARG_LOG_FILE", "value": "/etc/x"}, EXACT, ERROR, "ForbiddenFlag", "does not lie"),
        ({"name": "LLAMA_ARG_LOG_FILE", "valueFrom": {"x": 1}}, EXACT, ERROR, "ForbiddenFlag", "cannot be checked"),
        ({"name": "LLAMA_ARG_LOG_FILE", "value": "$(HOME)/x"}, EXACT, ERROR, "ForbiddenFlag", "cannot be checked"),
        ({"name": "LLAMA_ARG_RPC", "value": "a:1"}, EXACT, ERROR, "ForbiddenFlag", "other machines"),
        ({"name": "HF_TOKEN", "value": "geheim"}, EXACT, WARNING, "PlainSecret", "HF_TOKEN stands in the manifest"),
        ({"name": "DB_PASSWORD", "value": "geheim"}, EXACT, WARNING, "PlainSecret", "DB_PASSWORD"),
        ({"name": "X", "value": "a\x1b[0m"}, EXACT, ERROR, "InvalidFlagValue", r"U\+001B"),
    ],
)  # fmt: skip
def test_a_variable_is_checked_like_its_flag(
    variable: dict[str, Any], build: int, severity: Severity, code: str, says: str
) -> None:
    (finding,) = check([], [variable], build=build).findings
    assert brief([finding]) == [(severity, FindingCode(code), "spec.env[0]")]
    assert re.search(says, finding.message), finding.message
    assert "geheim" not in finding.message
    assert finding.suggestion


@pytest.mark.parametrize(
    "variable",
    [
        {"name": "LLAMA_ARG_CTX_SIZE", "value": "4096"},
        {"name": "LLAMA_ARG_CTX_SIZE", "value": "$(SIZE)"},
        {"name": "LLAMA_ARG_JINJA", "value": "off"},
        {"name": "LLAMA_ARG_NO_JINJA", "value": "1"},
        {"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        {"name": "LLAMA_ARG_API_KEY_FILE", "value": "/models/keys"},
        {"name": "GGML_CUDA_FORCE_MMQ", "value": "1"},
        {},
    ],
)
def test_variables_that_are_right_or_not_for_llama_server_are_left_alone(variable: dict[str, Any]) -> None:
    assert check([], [variable]).findings == ()


def test_a_variable_and_a_flag_for_one_setting_are_one_too_many() -> None:
    report = check(["-c", "1"], [{"name": "LLAMA_ARG_CTX_SIZE", "value": "1"}])
    assert brief(report.findings) == [(ERROR, FindingCode.DUPLICATE_SETTING, "spec.env[0]")]
    report = check([], [{"name": "LLAMA_ARG_NO_JINJA", "value": "1"}, {"name": "LLAMA_ARG_JINJA", "value": "1"}])
    assert brief(report.findings) == [(ERROR, FindingCode.DUPLICATE_SETTING, "spec.env[1]")]


# what reaches beyond the pod

_REACHING = frozenset(
    [
        "url",
        "host",
        "hostname",
        "port",
        "hf",
        "hfr",
        "repo",
        "docker",
        "rpc",
        "ssl",
        "cors",
        "proxy",
        "tool",
        "tools",
        "mcp",
        "agent",
        "file",
        "path",
        "dir",
        "dirs",
        "api",
        "default",
        "offline",
        "key",
        "token",
        "socket",
        "remote",
        "web",
        "webui",
        "ui",
        "preset",
        "models",
        "media",
        "http",
        "https",
        "download",
        "public",
        "cert",
        "save",
        "serve",
    ]
)


def _parts(flag: Flag) -> set[str]:
    spellings = {part for spelling in flag.spellings for part in spelling.strip("-").split("-")}
    return spellings | set((flag.env or "").lower().removeprefix("llama_arg_").split("_"))


@pytest.mark.parametrize("build", CATALOGUES.builds)
def test_every_flag_that_names_files_or_the_network_is_classified(build: int) -> None:
    unclassified = [
        flag.name
        for flag in CATALOGUES.get(build).flags
        if flag.state is not FlagState.REMOVED
        and (flag.value_type is ValueType.PATH or _parts(flag) & _REACHING)
        and risk_of(flag) is None
        and HARMLESS.keys().isdisjoint(flag.spellings)
    ]
    assert unclassified == [], "add each to RISKS or to HARMLESS in core/engine/policy.py, with the reason"


def test_no_build_has_a_path_that_is_only_harmless() -> None:
    for build in CATALOGUES.builds:
        for flag in CATALOGUES.get(build).flags:
            if flag.value_type is ValueType.PATH and flag.state is not FlagState.REMOVED:
                assert risk_of(flag) is not None, flag.name


def test_the_tables_hold_nothing_that_no_build_has_and_no_flag_twice() -> None:
    known = {
        spelling for build in CATALOGUES.builds for flag in CATALOGUES.get(build).flags for spelling in flag.spellings
    }
    assert {*RISKS, *HARMLESS, *MANAGED_FLAGS} <= known
    assert not RISKS.keys() & HARMLESS.keys()
    assert {risk.reach for risk in RISKS.values()} == set(Reach)


# secrets


def test_secrets_are_masked_wherever_they_stand() -> None:
    words = ["--api-key", "geheim", "-c", "1", "-hft", "geheim", "--api_key=geheim", "--apikey", "geheim", "-fa"]
    assert mask_command(words) == (
        *("--api-key", MASK, "-c", "1", "-hft", MASK),
        *(f"--api_key={MASK}", "--apikey", MASK, "-fa"),
    )
    assert mask_command(["--api-key"]) == ("--api-key",)
    assert mask_command(["--api-key geheim", "-c", "1"]) == (f"--api-key {MASK}", "-c", "1")
    assert mask_command(["api-key=geheim"]) == (f"api-key={MASK}",)
    assert mask_command(["--api-key", "my", "geheim", "-c", "1"]) == ("--api-key", MASK, MASK, "-c", "1")
    assert mask_command(["--api-key", "-geheim"]) == ("--api-key", MASK)


@pytest.mark.parametrize(
    "flag", ["--api-key-file", "--image-max-tokens", "--cache-type-k", "--keep", "-k", "key", "--grammar"]
)
def test_what_is_no_secret_is_shown(flag: str) -> None:
    assert not is_secret_flag(flag)
    assert mask_command([flag, "value"]) == (flag, "value")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("LLAMA_API_KEY", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("my_password", True),
        ("LLAMA_ARG_API_KEY_FILE", False),
        ("LLAMA_ARG_N_PREDICT", False),
        ("MAX_TOKENS", False),
        ("MONKEY", False),
    ],
)
def test_variables_are_secret_by_their_name(name: str, secret: bool) -> None:
    assert is_secret_variable(name) is secret


# combinations


def combine(args: Sequence[str], *, build: int | None = EXACT, env: Env = (), **facts: Any) -> list[Finding]:
    match = CATALOGUES.match(build)
    return list(check_combinations(args, match=match, fields={}, extra_args_from=0, env=env, facts=ModelFacts(**facts)))


@pytest.mark.parametrize(
    ("args", "facts", "severity", "field", "says"),
    [
        ("-ctv q8_0 -fa off", {}, ERROR, 0, "needs flash attention"),
        ("-sm tensor -fa 0", {}, ERROR, 0, "split mode tensor needs flash attention"),
        ("-ctk q8_0", {"mla": True}, ERROR, 0, "one type"),
        ("-np 300", {}, ERROR, 0, "at most 256 slots"),
        ("-c 4 -np 8", {}, WARNING, 0, "becomes 2048"),
        ("-c -5", {}, ERROR, 0, "a number of tokens"),
        ("-c 1000 -np 8", {}, WARNING, 0, "becomes 2048"),
        ("-c 65536 -np 1", {"n_ctx_train": 32768}, WARNING, 0, "trained with 32768"),
        ("-ts 1,1", {"gpus": 1}, WARNING, 0, "2 shares for 1 GPUs"),
        ("-ts 1", {"gpus": 2}, WARNING, 0, "the others get nothing"),
        ("-ts 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", {}, ERROR, 0, "fewer than 16"),
        ("-sm none -mg 2", {"gpus": 2}, ERROR, 2, "there is no 2 of 2"),
        ("--reranking --pooling mean", {}, ERROR, 1, "pooling by rank"),
        ("--embeddings --pooling none", {}, WARNING, 1, "a vector for each token"),
        ("--pooling mean", {}, WARNING, 0, "no use for it"),
        ("--embeddings -b 2048", {}, WARNING, 1, "batch of 2048 becomes 512"),
        ("-b 256 -ub 512", {}, WARNING, 2, "larger than the batch"),
        ("--spec-draft-n-max 8", {}, WARNING, 0, "no effect without a draft model"),
        ("--spec-type draft-simple", {}, WARNING, 0, "needs a draft model"),
        ("-md /models/d --spec-draft-n-min 9 --spec-draft-n-max 8", {}, WARNING, 2, "thrown away"),
        ("--mmproj /models/p --context-shift", {}, WARNING, 2, "context shift off"),
        ("--mmproj /models/p --cache-reuse 256", {}, WARNING, 2, "cache reuse off"),
        ("--image-max-tokens 5", {}, WARNING, 0, "without a projector"),
        ("--cache-reuse 256 --no-cache-prompt", {}, WARNING, 0, "prompts are not cached"),
        ("--cache-idle-slots --cache-ram 0", {}, WARNING, 0, "without a prompt cache"),
        ("--no-jinja --chat-template {{x}}", {}, ERROR, 1, "built-in chat templates"),
        ("--chat-template chatml --chat-template-file /models/t", {}, ERROR, 2, "uses the last one only"),
        ("--grammar root", {}, WARNING, 0, "tool calls cannot work"),
    ],
)
def test_settings_that_do_not_go_together_are_found(
    args: str, facts: dict[str, Any], severity: Severity, field: int, says: str
) -> None:
    (finding,) = combine(args.split(), **facts)
    assert (finding.severity, finding.field) == (severity, f"spec.extraArgs[{field}]")
    assert says in finding.message
    assert finding.suggestion


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        ("-ctv q8_0 -fa auto", {}),
        ("-ctv q8_0", {}),
        ("-ctv f16 -fa off", {}),
        ("-ctk q8_0 -ctv q8_0", {"mla": True}),
        ("-ctk q8_0", {"mla": False}),
        ("-c 8192 -np 4", {"n_ctx_train": 2048}),
        ("-c 0 -np 8", {"n_ctx_train": 2048}),
        ("-c 8192", {"n_ctx_train": 8192}),
        ("-c 8192 --override-kv llama.context_length=int:8192", {"n_ctx_train": 2048}),
        ("-ts 1,1", {"gpus": 2}),
        ("--reranking", {}),
        ("--reranking --pooling rank", {}),
        ("--embeddings --pooling mean -b 512 -ub 512", {}),
        ("-md /models/d --spec-draft-n-max 8 --spec-type draft-simple", {}),
        ("--spec-type draft-mtp --spec-draft-n-max 8", {}),
        ("--no-jinja --chat-template chatml", {}),
        ("--chat-template {{x}}", {}),
        ("-c x -np y -b z", {}),
        ("-ctv", {}),
    ],
)
def test_settings_that_go_together_are_left_alone(args: str, facts: dict[str, Any]) -> None:
    assert combine(args.split(), **facts) == []


def test_builds_whose_flash_attention_is_off_by_default_need_the_flag() -> None:
    assert [f.severity for f in combine(["-ctv", "q8_0"], build=5481)] == [ERROR]
    assert combine(["-ctv", "q8_0", "-fa"], build=5481) == []


def test_a_conflict_names_the_field_that_it_comes_from() -> None:
    match = CATALOGUES.match(EXACT)
    (finding,) = check_combinations(
        ["--cache-type-v", "q8_0", "-fa", "off"],
        match=match,
        fields={"--cache-type-v": "spec.engine.cacheTypeV"},
        extra_args_from=2,
    )
    assert finding.field == "spec.engine.cacheTypeV"


def test_variables_count_unless_the_command_line_says_otherwise() -> None:
    off = [{"name": "LLAMA_ARG_FLASH_ATTN", "value": "off"}]
    assert len(combine(["-ctv", "q8_0"], env=off)) == 1
    assert combine(["-ctv", "q8_0", "-fa", "on"], env=off) == []


# any text

_SPELLINGS = sorted({s for build in CATALOGUES.builds for flag in CATALOGUES.get(build).flags for s in flag.spellings})
_WORDS = st.lists(
    st.sampled_from(_SPELLINGS) | st.text(max_size=12) | st.sampled_from(["-1", "1", "on", "a,b", "=", "{}"]),
    max_size=40,
)
_BUILDS = st.sampled_from([*CATALOGUES.builds, None, 0, 9000, 10**9])
_NAMES = sorted({flag.env for flag in CATALOGUES.get(EXACT).flags if flag.env})
_ENV = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(_NAMES) | st.text(max_size=9)},
        optional={"value": st.text(max_size=9) | st.none(), "valueFrom": st.just({"x": 1})},
    ),
    max_size=8,
)


@given(_WORDS, _ENV, _BUILDS, st.booleans())
def test_any_words_give_findings_that_point_into_the_lists(
    words: list[str], env: list[dict[str, Any]], build: int | None, strict: bool
) -> None:
    typed = {"--ctx-size": "spec.engine.contextSize"}
    report = check(words, env, build=build, typed=typed, policy=ArgumentPolicy(strict=strict))
    for finding in report.findings:
        place = re.fullmatch(r"spec\.(extraArgs|env)\[([0-9]+)\]", finding.field)
        assert place is not None
        assert int(place[2]) < len(words if place[1] == "extraArgs" else env)
        assert finding.suggestion
        assert finding.message.isprintable()
    combine(words, build=build, env=env, n_ctx_train=4096, mla=True, gpus=2)
    assert len(mask_command(words)) == len(words)


def test_the_longest_list_of_the_worst_words_takes_work_in_proportion() -> None:
    report = check([f"--unknown-flag-{i}" for i in range(512)])
    assert len(report.findings) == 512
    report = check(["--seed"] * 512)
    assert len(report.findings) == 512 + 511
