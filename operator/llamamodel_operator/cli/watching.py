"""Shows a screen of a cluster once, or with `--watch` again whenever it changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import click

from llamamodel_operator.cli.cluster import Cluster, NoClusterError, ask_cluster
from llamamodel_operator.cli.exit_codes import FINE, UNREADABLE
from llamamodel_operator.cli.terminal import note

__all__ = ["PERIOD_SEC", "Look", "Screen", "show", "show_again"]

PERIOD_SEC = 2.0
_LONGEST_PAUSE_SEC = 30.0
"""Between two tries, while the cluster does not answer."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Attributes:
    text: what is shown.
    content: what of it counts as a change; ages, which always change, do not.
    code: with which the command exits where it is shown once.
    """

    text: str
    content: str
    code: int = FINE


Look = Callable[[], Awaitable[Screen]]
"""Looks, and makes the screen of it. Raises NoClusterError, and what aiohttp raises."""


def show(
    looking: Callable[[Cluster], Look],
    *,
    watch: bool,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
) -> int:
    """Shows what there is to see in a cluster, once or until it is interrupted; the exit code. Errors are told."""

    async def run(cluster: Cluster) -> int:
        look = looking(cluster)
        if watch:
            await show_again(look)
        screen = await look()
        click.echo(screen.text)
        return screen.code

    try:
        return ask_cluster(run, kubeconfig=kubeconfig, context=context, namespace=namespace)
    except NoClusterError as error:
        note(f"error: {error}")
        return UNREADABLE
    except KeyboardInterrupt:
        if watch:
            return FINE
        raise


async def show_again(look: Look) -> None:
    """Until it is interrupted. A terminal is redrawn; elsewhere each screen that changed follows the one before.

    A cluster that does not answer for a while, or with an error that will pass, is no end: it is told once, and asked
    again after pauses that grow. Raises NoClusterError for what will not pass.
    """
    shown: Screen | None = None
    pause, told = PERIOD_SEC, ""
    while True:
        try:
            screen = await look()
        except (NoClusterError, aiohttp.ClientError, OSError) as error:
            if isinstance(error, NoClusterError) and not error.passing:
                raise
            what = "" if isinstance(error, NoClusterError) else "the cluster does not answer: "
            said = f"{what}{str(error) or type(error).__name__}; it is asked again"
            if said != told:
                note(said)
            pause, told = min(2 * pause, _LONGEST_PAUSE_SEC), said
        else:
            if sys.stdout.isatty():
                if shown is None or told or screen.text != shown.text:
                    click.clear()
                    click.echo(screen.text)
            elif shown is None or screen.content != shown.content:
                click.echo(screen.text if shown is None else f"\n{screen.text}")
            sys.stdout.flush()
            shown, pause, told = screen, PERIOD_SEC, ""
        await asyncio.sleep(pause)
