"""The command `inspect` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

import click

from llamamodel_operator.cli.exit_codes import FINE, FOUND, UNREADABLE
from llamamodel_operator.cli.options import Command, colour_option, examples, output_option

__all__ = ["inspect"]


@click.command(
    cls=Command,
    short_help="Tells what a GGUF file is.",
    epilog=examples(
        "llamamodel inspect Qwen3-8B-Q4_K_M.gguf",
        "llamamodel inspect 70b-00001-of-00003.gguf --tensors   # the first part: all are found and checked",
        "llamamodel inspect https://example.com/Qwen3-8B-Q4_K_M.gguf -o json",
    ),
)
@click.argument("source", metavar="FILE|URL")
@click.option("--tensors", is_flag=True, help="List the tensors too.")
@output_option("text", "json", default="text")
@colour_option
def inspect(source: str, tensors: bool, output: str) -> int:
    """Tells what the header of a GGUF file says: a model, the first part of one, a LoRA adapter or a projector.

    The tensors' data is not read; that all of it is there is checked. Of a URL only the header's bytes are fetched.
    Exits with 1 where the file is not sound, with 2 where it cannot be read.
    """
    from llamamodel_operator.cli.inspecting import inspection_json, inspection_text
    from llamamodel_operator.cli.terminal import note
    from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
    from llamamodel_operator.shell.gguf_files import open_gguf

    try:
        model = open_gguf(source)
        write = inspection_json if output == "json" else inspection_text
        click.echo(write(model, tensors=tensors))
    except GgufError as error:
        note(f"error: {error.reason}: {error}")
        unread = (
            GgufProblem.MODEL_FILE_NOT_FOUND,
            GgufProblem.PERMISSION_DENIED,
            GgufProblem.NOT_A_FILE,
            GgufProblem.UNREADABLE,
        )
        return UNREADABLE if error.reason in unread else FOUND
    return FINE
