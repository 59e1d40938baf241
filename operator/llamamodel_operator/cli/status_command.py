"""The command `status` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

import click

from llamamodel_operator.cli.exit_codes import FINE, FOUND
from llamamodel_operator.cli.options import Command, cluster_options, colour_option, examples, output_option

__all__ = ["status"]


@click.command(
    cls=Command,
    short_help="Tells how a LlamaModel is, on one screen.",
    epilog=examples(
        "llamamodel status qwen3",
        "llamamodel status qwen3 -n team-a --watch",
        "llamamodel status qwen3 -o json | jq .promptTokensPerSecond",
    ),
)
@click.argument("name")
@click.option("-w", "--watch", is_flag=True, help="Look again every 2 seconds, and show what changed, until ctrl-C.")
@cluster_options
@output_option("text", "json", default="text")
@colour_option
def status(
    name: str, watch: bool, namespace: str | None, context: str | None, kubeconfig: str | None, output: str
) -> int:
    """Tells how a LlamaModel is: conditions, pods, memory, findings, the last failure, and what its servers do now.

    Servers are asked through the API server, which takes the right to get pods/proxy; what cannot be read is said.
    Exits with 0 where it is ready, with 1 where it is not, with 2 where it cannot be read.
    """
    import shutil
    from datetime import UTC, datetime

    from llamamodel_operator.cli.cluster import Cluster
    from llamamodel_operator.cli.observing import Watcher
    from llamamodel_operator.cli.status_json import status_json
    from llamamodel_operator.cli.status_report import status_text
    from llamamodel_operator.cli.watching import Look, Screen, show

    def looking(cluster: Cluster) -> Look:
        watcher = Watcher(cluster)

        async def look() -> Screen:
            (seen,) = await watcher.observe([await cluster.model(name)])
            text = content = status_json(seen)
            if output == "text":
                width = shutil.get_terminal_size((120, 40)).columns
                text = status_text(seen, now=datetime.now(UTC), width=width)
            return Screen(text=text, content=content, code=FINE if seen.ready else FOUND)

        return look

    return show(looking, watch=watch, kubeconfig=kubeconfig, context=context, namespace=namespace)
