"""What the commands share: options, examples in the help text, the type of a build."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "Build",
    "Command",
    "Duration",
    "Flags",
    "Group",
    "cluster_options",
    "colour_option",
    "examples",
    "output_option",
    "takes_files",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNITS = {"h": 3600, "m": 60, "s": 1}


class Command(click.Command):
    """A command whose examples in the help text stay as they are written."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.split("\n"):
                formatter.write(line.rstrip() + "\n")


class Group(Command, click.Group):
    command_class = Command


class Flags(Group):
    """`flags PATTERN` is `flags list PATTERN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        completing_the_first = ctx.resilient_parsing and not args
        if not completing_the_first and (not args or args[0] not in (*self.commands, "--help", "-h")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


Group.group_class = Group


def examples(*lines: str) -> str:
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _colour(ctx: click.Context, _option: click.Parameter, value: str) -> str:
    if value == "auto":
        ctx.color = False if os.environ.get("NO_COLOR") else None
    else:
        ctx.color = value == "always"
    return value


class Build(click.ParamType[int]):
    """A build such as b10434 or 10434."""

    name = "build"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not re.fullmatch("b?[0-9]{1,7}", value, re.ASCII):
            self.fail(
                f"{value!r} is no build: write one such as b10434; `llamamodel builds` lists those known", param, ctx
            )
        return int(value.removeprefix("b"))

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from llamamodel_operator.core.engine.catalogues import shipped_catalogues

        builds = (f"b{build}" for build in shipped_catalogues().builds)
        return [CompletionItem(build) for build in builds if build.startswith(incomplete)]


class Duration(click.ParamType[int]):
    """Seconds, written as kubectl takes them: 90s, 10m, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not value or not re.fullmatch(r"(\d{1,6}h)?(\d{1,6}m)?(\d{1,8}s)?", value, re.ASCII):
            self.fail(f"{value!r} is no duration: write one such as 90s, 10m or 1h30m", param, ctx)
        return max(1, sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", value)))


colour_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    callback=_colour,
    expose_value=False,
    help="Colour the text. auto: on a terminal, unless NO_COLOR is set.",
)


def takes_files(function: _Function) -> _Function:
    for option in (
        colour_option,
        click.option(
            "--config", metavar="FILE", type=click.Path(), help="The operator's configuration: the chart's values."
        ),
        click.option("-R", "--recursive", is_flag=True, help="Look into folders inside of folders too."),
        click.argument("more", nargs=-1, type=click.Path(allow_dash=True), metavar="[FILE]..."),
        click.option(
            "-f",
            "--filename",
            "files",
            multiple=True,
            metavar="FILE",
            type=click.Path(allow_dash=True),
            help="A file or a folder with manifests, or - for standard input. May be given several times.",
        ),
    ):
        function = option(function)
    return function


def output_option(*choices: str, default: str | None) -> Callable[[_Function], _Function]:
    return click.option("-o", "--output", type=click.Choice(choices), default=default, help="How to print it.")


def cluster_options(function: _Function) -> _Function:
    for option in (
        click.option("--kubeconfig", type=click.Path(), help="Path of a kubeconfig."),
        click.option("--context", help="Context of the kubeconfig."),
        click.option("-n", "--namespace", help="Namespace. Unset: the context's."),
    ):
        function = option(function)
    return function
