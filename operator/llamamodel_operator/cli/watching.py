"""`--watch`: shows a screen again whenever it changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import click

__all__ = ["PERIOD_SEC", "show_again"]

PERIOD_SEC = 2.0


async def show_again(screen: Callable[[], Awaitable[str]]) -> None:
    """Until it is interrupted. A terminal is redrawn; elsewhere each new screen follows the one before."""
    shown = None
    while True:
        text = await screen()
        if text != shown:
            if sys.stdout.isatty():
                click.clear()
            elif shown is not None:
                click.echo()
            click.echo(text)
            sys.stdout.flush()
            shown = text
        await asyncio.sleep(PERIOD_SEC)
