"""`--watch`: shows a screen again whenever it changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import click

from llamamodel_operator.cli.terminal import clean

__all__ = ["PERIOD_SEC", "Screen", "show_again"]

PERIOD_SEC = 2.0


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Attributes:
    text: what is shown.
    content: what of it counts as a change; ages, which always change, do not.
    """

    text: str
    content: str


async def show_again(look: Callable[[], Awaitable[Screen]]) -> None:
    """Until it is interrupted. A terminal is redrawn; elsewhere each screen that changed follows the one before.

    A cluster that does not answer for a while is no end.
    """
    shown: Screen | None = None
    while True:
        try:
            screen = await look()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            said = f"the cluster does not answer: {clean(str(error)) or type(error).__name__}"
            screen = Screen(text=said, content=said)
        if sys.stdout.isatty():
            if shown is None or screen.text != shown.text:
                click.clear()
                click.echo(screen.text)
        elif shown is None or screen.content != shown.content:
            click.echo(screen.text if shown is None else f"\n{screen.text}")
        sys.stdout.flush()
        shown = screen
        await asyncio.sleep(PERIOD_SEC)
