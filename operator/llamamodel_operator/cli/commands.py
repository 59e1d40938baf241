"""The commands and their options. What they need is imported when they run, so that --help and completion are quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llamamodel_operator import __version__
from llamamodel_operator.cli.bench_command import bench
from llamamodel_operator.cli.estimate_command import estimate
from llamamodel_operator.cli.exit_codes import FINE, FOUND, UNREADABLE
from llamamodel_operator.cli.gateway_key_command import gateway_key
from llamamodel_operator.cli.inspect_command import inspect
from llamamodel_operator.cli.logs_command import logs
from llamamodel_operator.cli.options import (
    Build,
    Flags,
    Group,
    colour_option,
    examples,
    output_option,
    takes_files,
)
from llamamodel_operator.cli.status_command import status
from llamamodel_operator.cli.top_command import top

if TYPE_CHECKING:
    from llamamodel_operator.cli.checking import Checked
    from llamamodel_operator.cli.documents import Problem
    from llamamodel_operator.cli.manifests import Manifests
    from llamamodel_operator.cli.upgrading import Upgrade
    from llamamodel_operator.core.engine.catalogues import Catalogues
    from llamamodel_operator.core.plan import Configuration

__all__ = ["COMPLETE_VARIABLE", "cli"]

COMPLETE_VARIABLE = "_LLAMAMODEL_COMPLETE"


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "llamamodel validate -f manifests/",
        "llamamodel render -f qwen3.yaml --command",
        "llamamodel estimate --gguf Qwen3-8B-Q4_K_M.gguf --gpu-memory 24Gi -- -c 32768 -np 4",
        "llamamodel flags --build b10434 flash",
        "llamamodel upgrade-check --to-build b11669 -f manifests/",
        "llamamodel status qwen3",
        "llamamodel bench qwen3 --compare engine.flashAttention=off",
        "",
        "COMMAND --help has examples of each.",
        "Exit codes: 0 fine, 1 errors were found, 2 wrong usage or unreadable input.",
    ),
)
@click.version_option(__version__, message="llamamodel %(version)s")
def cli() -> None:
    """Looks at LlamaModels before they run, without a cluster, and while they run."""


@cli.command(
    short_help="Prints the objects, or the command line, that would be made.",
    epilog=examples(
        "llamamodel render -f qwen3.yaml               # all objects that the operator would make",
        "llamamodel render -f qwen3.yaml --command     # the command line of llama-server",
        "llamamodel render -f qwen3.yaml --command -o json",
        "kubectl get lm qwen3 -o yaml | llamamodel render -f - --config values.yaml",
    ),
)
@takes_files
@output_option("yaml", "json", default=None)
@click.option("--command", "command", is_flag=True, help="Print the command line of llama-server alone.")
def render(
    files: Sequence[str], more: Sequence[str], recursive: bool, config: str | None, output: str | None, command: bool
) -> int:
    """Prints what the operator would make of LlamaModels.

    Secrets are masked. Findings go to standard error. Exits with 1 where a LlamaModel has errors: the operator would
    apply nothing of it.
    """
    from llamamodel_operator.cli.rendering import command_text, objects_text
    from llamamodel_operator.cli.reporting import finding_lines, title
    from llamamodel_operator.cli.terminal import note

    if command and output == "yaml":
        raise click.UsageError("--command prints text or JSON: leave out -o yaml")
    manifests = _read([*files, *more], recursive=recursive)
    results = _check(manifests, _configured(config))
    for result in results:
        if result.findings:
            click.echo("\n".join([title(result.manifest), *finding_lines(result.manifest, result.findings)]), err=True)
    for problem in manifests.problems:
        note(f"error: {problem}")
    if not results and not manifests.problems:
        note(f"error: no LlamaModel among {manifests.others} objects")
        return UNREADABLE
    plans = [result.plan for result in results if result.plan]
    if plans and command:
        click.echo(command_text(plans, output=output, on_terminal=sys.stdout.isatty()))
    elif plans:
        click.echo(objects_text(plans, output=output or "yaml"))
    return _code(results, manifests.problems)


@cli.command(
    short_help="Checks LlamaModels.",
    epilog=examples(
        "llamamodel validate -f qwen3.yaml -f gemma.yaml",
        "llamamodel validate --recursive -f manifests/ --config values.yaml",
        "helm template chart/ | llamamodel validate -f - --strict",
        "llamamodel validate -o github -f manifests/   # annotations in a GitHub workflow",
    ),
)
@takes_files
@output_option("text", "json", "github", default="text")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
def validate(
    files: Sequence[str], more: Sequence[str], recursive: bool, config: str | None, output: str, strict: bool
) -> int:
    """Checks LlamaModels: fields, flags for the build that will run, templates, grammars.

    Objects of other kinds are passed over, but for ConfigMaps that a LlamaModel refers to. Exits with 1 where there
    are errors.
    """
    from llamamodel_operator.api.findings import Severity
    from llamamodel_operator.cli.reporting import github_text, report_json, report_text

    manifests = _read([*files, *more], recursive=recursive)
    results = _check(manifests, _configured(config))
    write = {"text": report_text, "json": report_json, "github": github_text}[output]
    if text := write(results, manifests.problems):
        click.echo(text)
    code = _code(results, manifests.problems)
    if strict and any(found.severity is Severity.WARNING for result in results for found in result.findings):
        return code or FOUND
    return code


@cli.command(
    "upgrade-check",
    short_help="Tells what another build of llama.cpp would break.",
    epilog=examples(
        "llamamodel upgrade-check --to-build b11669 -f manifests/",
        "llamamodel upgrade-check --to-build b11669 --all-namespaces --config values.yaml",
        "llamamodel upgrade-check --to-build b11669 --namespace team-a --context production -o json",
    ),
)
@click.option("--to-build", "build", required=True, type=Build(), help="The build that the images would hold.")
@takes_files
@click.option("-A", "--all-namespaces", is_flag=True, help="Check the LlamaModels of the whole cluster.")
@click.option("-n", "--namespace", help="Check the LlamaModels of a namespace of the cluster.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", type=click.Path(), help="Path of a kubeconfig.")
@output_option("text", "json", default="text")
def upgrade_check(
    build: int,
    files: Sequence[str],
    more: Sequence[str],
    recursive: bool,
    config: str | None,
    all_namespaces: bool,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    output: str,
) -> int:
    """Tells what another build of llama.cpp would mean: which LlamaModels would break, and which would change.

    Each is planned as it is, and as if its image's tag and spec.engine.build named the other build. Nothing is
    written. Exits with 1 where one would break.
    """
    from llamamodel_operator.cli.checking import a_checker
    from llamamodel_operator.cli.manifests import Manifest, Manifests
    from llamamodel_operator.cli.terminal import note
    from llamamodel_operator.cli.upgrading import Verdict, check_upgrade

    configuration = _configured(config)
    paths = [*files, *more]
    if bool(paths) == bool(all_namespaces or namespace) or (all_namespaces and namespace):
        raise click.UsageError("give one of --filename, --all-namespaces and --namespace")
    if paths:
        manifests = _read(paths, recursive=recursive)
        text = manifests.text
    else:
        from llamamodel_operator.cli.cluster import NoClusterError, read_cluster

        try:
            found = read_cluster(
                namespace=namespace, kubeconfig=kubeconfig, context=context, defaults=configuration.defaults
            )
        except NoClusterError as error:
            note(f"error: {error}")
            return UNREADABLE
        manifests, text = Manifests(models=[Manifest(raw=raw) for raw in found.models]), found.text
    _tell_nearest(build, configuration.catalogues)
    with a_checker(configuration, text) as checker:
        upgrades = [check_upgrade(manifest, build, checker) for manifest in manifests.models]
    for problem in manifests.problems:
        note(f"error: {problem}")
    _print_upgrades(upgrades, build=build, output=output)
    if manifests.problems:
        return UNREADABLE
    return FOUND if any(upgrade.verdict is Verdict.BREAKS for upgrade in upgrades) else FINE


def _print_upgrades(upgrades: Sequence[Upgrade], *, build: int, output: str) -> None:
    from llamamodel_operator.cli.upgrade_report import upgrades_json, upgrades_text

    click.echo(upgrades_json(upgrades, build=build) if output == "json" else upgrades_text(upgrades, build=build))


@cli.group(cls=Flags, short_help="Lists the flags of llama-server, and how builds differ.")
def flags() -> None:
    """Lists what llama-server takes on its command line, for each build.

    `flags [PATTERN]` is `flags list [PATTERN]`.
    """


@flags.command(
    "list",
    context_settings={"ignore_unknown_options": True},  # a PATTERN may begin with dashes
    epilog=examples(
        "llamamodel flags                          # those of the newest build that is known",
        "llamamodel flags --build b10434 flash",
        "llamamodel flags '--lora*' --output json",
        "llamamodel flags --chat-templates",
    ),
)
@click.argument("pattern", required=False)
@click.option("--build", type=Build(), help="Build of llama.cpp. Unset: the newest that is known.")
@click.option("--chat-templates", is_flag=True, help="List the names for spec.chatTemplate.preset instead.")
@output_option("text", "json", default="text")
@colour_option
def list_flags(pattern: str | None, build: int | None, chat_templates: bool, output: str) -> int:
    """Lists the flags with PATTERN in a spelling or in the environment variable; all without one.

    * and ? in PATTERN stand for any characters. Exits with 1 where there is none.
    """
    from llamamodel_operator.cli.flags import chat_templates_text, flags_text, matching_flags, not_found
    from llamamodel_operator.cli.terminal import note

    catalogues = _catalogues()
    _tell_nearest(build, catalogues)
    catalogue = catalogues.match(build).catalogue if build is not None else catalogues.get(catalogues.builds[-1])
    if chat_templates:
        if pattern:
            raise click.UsageError("--chat-templates takes no PATTERN")
        click.echo(chat_templates_text(catalogue, output=output))
        return FINE
    found = matching_flags(catalogue, pattern)
    if not found and pattern:
        note(not_found(catalogue, pattern))
        return FOUND
    click.echo(flags_text(found, output=output))
    return FINE


@flags.command("diff", epilog=examples("llamamodel flags diff b9093 b11669"))
@click.argument("old", type=Build())
@click.argument("new", type=Build())
@output_option("text", "json", default="text")
@colour_option
def diff_flags(old: int, new: int, output: str) -> int:
    """Lists what build NEW takes that build OLD did not, no longer takes, or takes differently."""
    from llamamodel_operator.cli.flags import difference_text

    catalogues = _catalogues()
    _tell_nearest(old, catalogues)
    _tell_nearest(new, catalogues)
    click.echo(difference_text(catalogues.match(old).catalogue, catalogues.match(new).catalogue, output=output))
    return FINE


@cli.command(
    short_help="Lists the builds that are known.", epilog=examples("llamamodel builds", "llamamodel builds -o json")
)
@output_option("text", "json", default="text")
@colour_option
def builds(output: str) -> int:
    """Lists the builds of llama.cpp whose flags are known."""
    from llamamodel_operator.cli.flags import builds_text

    click.echo(builds_text(_catalogues(), output=output))
    return FINE


@cli.command(
    short_help="Prints a script for the shell.",
    epilog=examples(
        "source <(llamamodel completion bash)          # for this shell; put it into ~/.bashrc for all",
        "llamamodel completion zsh > ~/.zfunc/_llamamodel",
        "llamamodel completion fish > ~/.config/fish/completions/llamamodel.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Prints a script that completes commands, options and builds in a shell."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:  # pragma: no cover (click knows all three)
        raise click.UsageError(f"no completion for {shell}")
    # not source(), which runs the shell to look at its version
    instance = made(cli, {}, "llamamodel", COMPLETE_VARIABLE)
    click.echo((instance.source_template % instance.source_vars()).strip())
    return FINE


for command in (inspect, estimate, status, top, logs, bench, gateway_key):
    cli.add_command(command)


# --- what they share


def _read(paths: Sequence[str], *, recursive: bool) -> Manifests:
    from llamamodel_operator.cli.manifests import read_manifests

    if not paths:
        raise click.UsageError("name a file or a folder: --filename FILE, or - for standard input")
    return read_manifests(paths, recursive=recursive)


def _check(manifests: Manifests, configuration: Configuration) -> list[Checked]:
    from llamamodel_operator.cli.checking import a_checker

    with a_checker(configuration, manifests.text) as checker:
        return [checker.check(manifest) for manifest in manifests.models]


def _configured(file: str | None) -> Configuration:
    from llamamodel_operator.cli.configuration import BadConfigurationError, read_configuration

    try:
        return read_configuration(file)
    except BadConfigurationError as error:
        raise click.UsageError(str(error)) from None


def _code(results: Sequence[Checked], problems: Sequence[Problem]) -> int:
    if problems:
        return UNREADABLE
    return FOUND if any(result.errors for result in results) else FINE


def _catalogues() -> Catalogues:
    from llamamodel_operator.core.engine.catalogues import shipped_catalogues

    return shipped_catalogues()


def _tell_nearest(build: int | None, catalogues: Catalogues) -> None:
    """A line where there is no catalogue of the build itself."""
    from llamamodel_operator.cli.terminal import note

    if build is None or build in catalogues.builds:
        return
    match = catalogues.match(build)
    near = " and ".join(f"b{catalogue.build}" for catalogue in match.neighbours)
    certain = "only what both say is certain" if len(match.neighbours) > 1 else "nothing is certain"
    note(f"note: the flags of b{build} are not known; those of {near} are taken, and {certain}")
