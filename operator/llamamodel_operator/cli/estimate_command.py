"""The command `estimate` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

import click

from llamamodel_operator.cli.exit_codes import FINE, FOUND, UNREADABLE
from llamamodel_operator.cli.options import Build, Command, colour_option, examples, output_option

if TYPE_CHECKING:
    from llamamodel_operator.cli.checking import Checked
    from llamamodel_operator.cli.estimating import Estimated
    from llamamodel_operator.core.plan import Configuration

__all__ = ["estimate"]


@click.command(
    cls=Command,
    short_help="Tells what a model takes of GPUs and host, and whether it fits.",
    epilog=examples(
        "llamamodel estimate --gguf Qwen3-8B-Q4_K_M.gguf --gpu-memory 24Gi",
        "llamamodel estimate --gguf https://example.com/70b-00001-of-00003.gguf --gpus 2 --gpu-memory 48Gi",
        "llamamodel estimate --gguf model.gguf --gpu-memory 24Gi -- -c 8192 -np 1 -ctk q8_0 -ctv q8_0",
        "llamamodel estimate --gguf model.gguf --gpu-memory 24Gi --sweep context",
        "llamamodel estimate -f qwen3.yaml --gguf Qwen3-8B-Q4_K_M.gguf -o json",
    ),
)
@click.option("-f", "--filename", "file", metavar="FILE", type=click.Path(allow_dash=True), help="A LlamaModel.")
@click.option("--gguf", metavar="FILE|URL", help="The model, the first part of several. Of a URL, the header is read.")
@click.option("--gpus", type=int, metavar="N", help="GPUs. Unset: as the LlamaModel or --gpu-memory says, else 1.")
@click.option("--gpu-memory", "memory", metavar="SIZE,...", help="Memory of each GPU, such as 24Gi or 24Gi,48Gi.")
@click.option("--vendor", default="nvidia", metavar="NAME", help="Of the GPUs, for what the driver takes itself.")
@click.option("--overhead", metavar="SIZE", help="What the driver takes on each GPU, instead of the vendor's figure.")
@click.option("--sweep", type=click.Choice(["context", "parallel"]), help="Draw memory against a setting.")
@click.option("--build", type=Build(), help="Build of llama.cpp that the arguments are for. Unset: the newest known.")
@click.option("--config", metavar="FILE", type=click.Path(), help="The operator's configuration: the chart's values.")
@output_option("text", "json", default="text")
@colour_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- LLAMA-SERVER-ARGUMENTS...]")
def estimate(
    file: str | None,
    gguf: str | None,
    gpus: int | None,
    memory: str | None,
    vendor: str,
    overhead: str | None,
    sweep: Literal["context", "parallel"] | None,
    build: int | None,
    config: str | None,
    output: str,
    words: tuple[str, ...],
) -> int:
    """Tells how many bytes a llama-server takes on each GPU and on the host, from the model's header alone.

    The arguments after -- are those of llama-server; a command line can be pasted as it is. With -f they come on top
    of what the LlamaModel says. Exits with 1 where it does not fit, or the arguments have errors.
    """
    from llamamodel_operator.cli.estimate_report import estimate_json, estimate_text, sweep_text
    from llamamodel_operator.cli.estimating import BadRequestError, of_command_line, of_manifest
    from llamamodel_operator.cli.estimating import estimate as answer
    from llamamodel_operator.cli.estimating import sweep as swept
    from llamamodel_operator.core.engine.catalogues import shipped_catalogues
    from llamamodel_operator.core.gguf.geometry import UnsupportedModelError
    from llamamodel_operator.core.gguf.problem import GgufError

    catalogues = shipped_catalogues()
    told = _configuration(config) if config is not None else None
    configured = told.gpu_overhead if told is not None else {}
    try:
        if file is not None:
            request = of_manifest(
                _checked(file, told or _configuration(None)),
                words,
                gguf=gguf,
                gpus=gpus,
                memory=memory,
                overhead=overhead,
                configured=configured,
                catalogues=catalogues,
            )
        else:
            request = of_command_line(
                words,
                gguf=gguf,
                gpus=gpus,
                memory=memory,
                vendor=vendor,
                overhead=overhead,
                configured=configured,
                build=build,
                catalogues=catalogues,
            )
        found = answer(request)
    except BadRequestError as error:
        raise click.UsageError(str(error)) from None
    except (GgufError, UnsupportedModelError) as error:
        _refuse(str(error))
    points = tuple(swept(found, setting=sweep)) if sweep else ()
    if output == "json":
        click.echo(estimate_json(found, points, setting=sweep))
    elif sweep:
        click.echo(f"{estimate_text(found)}\n\n{sweep_text(found, points, setting=sweep)}")
    else:
        click.echo(estimate_text(found))
    return _code(found)


def _code(found: Estimated) -> int:
    wrong = any(finding.severity.value == "error" for finding in found.findings)
    return FOUND if wrong or found.fits is False else FINE


def _configuration(file: str | None) -> Configuration:
    from llamamodel_operator.cli.configuration import BadConfigurationError, read_configuration

    try:
        return read_configuration(file)
    except BadConfigurationError as error:
        raise click.UsageError(str(error)) from None


def _checked(file: str, configuration: Configuration) -> Checked:
    """The one LlamaModel of a file."""
    from llamamodel_operator.cli.checking import a_checker
    from llamamodel_operator.cli.manifests import read_manifests

    manifests = read_manifests([file])
    if manifests.problems:
        _refuse("\n".join(map(str, manifests.problems)))
    if len(manifests.models) != 1:
        names = ", ".join(manifest.name for manifest in manifests.models[:5])
        found = f"{len(manifests.models)} LlamaModels: {names}" if names else "no LlamaModel"
        _refuse(f"{file}: expected one LlamaModel, found {found}")
    with a_checker(configuration, manifests.text) as checker:
        return checker.check(manifests.models[0])


def _refuse(message: str) -> NoReturn:
    from llamamodel_operator.cli.terminal import note

    note("\n".join(f"error: {line}" for line in message.split("\n")))
    raise click.exceptions.Exit(UNREADABLE)
