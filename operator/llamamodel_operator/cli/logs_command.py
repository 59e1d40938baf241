"""The command `logs` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

import click

from llamamodel_operator.cli.exit_codes import FINE, FOUND, UNREADABLE
from llamamodel_operator.cli.options import Command, Duration, cluster_options, colour_option, examples

__all__ = ["logs"]


@click.command(
    cls=Command,
    short_help="Prints the logs of a LlamaModel's servers.",
    epilog=examples(
        "llamamodel logs qwen3                  # of the newest pod, from the first line",
        "llamamodel logs qwen3 -f --all-pods",
        "llamamodel logs qwen3 --previous       # of the run before the last restart",
        "llamamodel logs qwen3 --inspection     # of what looked at the files",
    ),
)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until ctrl-C.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's run before the last restart.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines alone.")
@click.option("--since", type=Duration(), metavar="DURATION", help="Not older than this, such as 10m.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("--all-pods", is_flag=True, help="Of all pods; each line begins with its pod.")
@click.option("--inspection", is_flag=True, help="Of the inspection of the files, or their check before a server.")
@cluster_options
@colour_option
def logs(
    name: str,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    all_pods: bool,
    inspection: bool,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> int:
    """Prints what the servers of a LlamaModel wrote, from the first line that the node still has.

    On a terminal, control characters other than colours are shown as escapes. Exits with 1 where there is no log.
    """
    import asyncio
    import sys

    from llamamodel_operator.cli.cluster import Cluster, NoClusterError, ask_cluster
    from llamamodel_operator.cli.log_reading import (
        LogError,
        LogOptions,
        Source,
        inspection_source,
        lines_of,
        server_sources,
        shown_line,
    )
    from llamamodel_operator.cli.terminal import note

    if inspection and all_pods:
        raise click.UsageError("give one of --inspection and --all-pods")
    options = LogOptions(follow=follow, previous=previous, timestamps=timestamps, tail=tail, since_sec=since)
    on_terminal, colours = sys.stdout.isatty(), click.get_current_context().color is not False

    async def write(cluster: Cluster, source: Source, *, prefix: str) -> None:
        async for line in lines_of(cluster, source, options, tell=note):
            text = shown_line(line, colours=colours) if on_terminal else line
            sys.stdout.write(f"{prefix}{text}\n")
            if follow:
                sys.stdout.flush()

    async def show(cluster: Cluster) -> int:
        model = await cluster.model(name)
        if inspection:
            source = await inspection_source(cluster, model)
            note(f"pod {source.pod}, container {source.container}")
            await write(cluster, source, prefix="")
            return FINE
        sources = await server_sources(cluster, model)
        if not all_pods:
            if len(sources) > 1:
                note(f"pod {sources[0].pod} is the newest of {len(sources)}: --all-pods shows all")
            await write(cluster, sources[0], prefix="")
            return FINE
        one_by_one = asyncio.Semaphore(len(sources) if follow else 1)

        async def write_one(source: Source) -> int:
            async with one_by_one:
                try:
                    await write(cluster, source, prefix=f"[{source.pod}] ")
                except LogError as error:
                    note(f"error: {error}")
                    return FOUND
            return FINE

        return max(await asyncio.gather(*map(write_one, reversed(sources))))

    try:
        return ask_cluster(show, kubeconfig=kubeconfig, context=context, namespace=namespace)
    except LogError as error:
        note(f"error: {error}")
        return FOUND
    except NoClusterError as error:
        note(f"error: {error}")
        return UNREADABLE
    except KeyboardInterrupt:
        if follow:
            return FINE
        raise
