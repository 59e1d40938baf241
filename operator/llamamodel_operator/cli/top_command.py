"""The command `top` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

import click

from llamamodel_operator.cli.options import Command, cluster_options, colour_option, examples, output_option

__all__ = ["top"]


@click.command(
    cls=Command,
    short_help="Tells what all LlamaModels do now.",
    epilog=examples(
        "llamamodel top",
        "llamamodel top --all-namespaces --watch",
        "llamamodel top -n team-a -o json",
    ),
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Those of the whole cluster.")
@click.option("-w", "--watch", is_flag=True, help="Look again every 2 seconds, and show what changed, until ctrl-C.")
@cluster_options
@output_option("text", "json", default="text")
@colour_option
def top(
    all_namespaces: bool, watch: bool, namespace: str | None, context: str | None, kubeconfig: str | None, output: str
) -> int:
    """Tells what LlamaModels do now: tokens per second, busy slots, requests that wait, memory.

    Tokens per second are those between two looks at the servers, a second apart. What is not known is "-": servers
    are asked through the API server, which takes the right to get pods/proxy, and for their metrics.
    """
    from llamamodel_operator.cli.cluster import Cluster
    from llamamodel_operator.cli.observing import Watcher
    from llamamodel_operator.cli.top_report import top_json, top_text
    from llamamodel_operator.cli.watching import Look, Screen, show

    if all_namespaces and namespace:
        raise click.UsageError("give one of --all-namespaces and --namespace")

    def looking(cluster: Cluster) -> Look:
        watcher = Watcher(cluster)

        async def look() -> Screen:
            seen = await watcher.observe(await cluster.models(everywhere=all_namespaces))
            text = top_json(seen) if output == "json" else top_text(seen, namespaces=all_namespaces)
            return Screen(text=text, content=text)

        return look

    return show(looking, watch=watch, kubeconfig=kubeconfig, context=context, namespace=namespace)
