"""The command `bench` and its options. What it needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

from typing import Any

import click

from llamamodel_operator.cli.exit_codes import UNREADABLE
from llamamodel_operator.cli.options import Command, Duration, cluster_options, colour_option, examples, output_option

__all__ = ["bench"]

_MOST_PARALLEL = 1024


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Such as 1,2,4."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(word) for word in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(1 <= number <= _MOST_PARALLEL for number in numbers):
            self.fail(f"{value!r}: write numbers from 1 to {_MOST_PARALLEL} with commas, such as 1,2,4", param, ctx)
        return numbers


@click.command(
    cls=Command,
    short_help="Measures a LlamaModel, or two settings of it.",
    epilog=examples(
        "llamamodel bench qwen3",
        "llamamodel bench qwen3 --parallel 1,4,16 --prompt-tokens 2048 --generate-tokens 256 --requests 32",
        "llamamodel bench qwen3 --compare engine.flashAttention=off",
        "llamamodel bench qwen3 --compare engine.parallelSlots=1 --compare engine.contextSize=8192",
        "llamamodel bench qwen3 --url http://localhost:8080 -o json",
    ),
)
@click.argument("name")
@click.option("--parallel", type=_Numbers(), default="1,2,4", metavar="N,...", help="Requests at a time.  [1,2,4]")
@click.option(
    "--prompt-tokens", type=click.IntRange(1, 10_000_000), metavar="N", help="Of each prompt.  [512, else 256]"
)
@click.option(
    "--generate-tokens", type=click.IntRange(1, 1_000_000), default=128, metavar="N", help="Asked for.  [128]"
)
@click.option(
    "--requests", type=click.IntRange(1), metavar="N", help="At each level.  [twice as many as parallel, 4 at least]"
)
@click.option("--seed", type=int, default=1, metavar="N", help="Of the prompts.  [1]")
@click.option(
    "--compare", "changes", multiple=True, metavar="FIELD=VALUE", help="Measure a copy with this in its spec too."
)
@click.option("--timeout", type=Duration(), default="15m", metavar="DURATION", help="For the copy to be ready.  [15m]")
@click.option("--config", metavar="FILE", type=click.Path(), help="The operator's configuration: the chart's values.")
@click.option("--url", metavar="URL", help="Ask this address, and no cluster.")
@click.option("--task", type=click.Choice(["generate", "embed", "rerank"]), help="Unset: the LlamaModel's.")
@cluster_options
@output_option("text", "json", default="text")
@colour_option
def bench(
    name: str,
    parallel: tuple[int, ...],
    prompt_tokens: int | None,
    generate_tokens: int,
    requests: int | None,
    seed: int,
    changes: tuple[str, ...],
    timeout: int,
    config: str | None,
    url: str | None,
    task: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    output: str,
) -> int:
    """Measures tokens per second and the time to the first token, for some numbers of requests at a time.

    Prompts are random words of exactly so many tokens, and nothing of them is cached. What the answers hold is
    compared with the servers' own metrics: exits with 1 where they do not agree although nobody else was seen to ask.

    --compare makes a copy of the LlamaModel with some fields changed, waits until it is ready, measures both by
    turns, and deletes it. It takes the GPUs of one more pod meanwhile.
    """
    import signal

    from llamamodel_operator.cli.bench_run import Plan, run_at, run_in_cluster
    from llamamodel_operator.cli.cluster import NoClusterError
    from llamamodel_operator.cli.servers import NotReadableError
    from llamamodel_operator.cli.terminal import note

    if url and changes:
        raise click.UsageError("--compare makes a copy in the cluster: leave out --url")
    if url and not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url {url}: write an address such as http://localhost:8080")
    plan = Plan(
        name=name,
        parallel=parallel,
        prompt_tokens=prompt_tokens,
        generate_tokens=generate_tokens,
        requests=requests,
        seed=seed,
        task=task,
        changes=changes,
        timeout_sec=timeout,
        config=config,
        json=output == "json",
    )
    endings = (signal.SIGTERM, signal.SIGHUP)  # a copy is deleted as after ctrl-C
    before = [signal.signal(ending, lambda *_: signal.raise_signal(signal.SIGINT)) for ending in endings]
    try:
        if url:
            return run_at(url, plan)
        return run_in_cluster(plan, kubeconfig=kubeconfig, context=context, namespace=namespace)
    except (NoClusterError, NotReadableError) as error:
        note(f"error: {error}")
        return UNREADABLE
    finally:
        for ending, handler in zip(endings, before, strict=True):
            signal.signal(ending, handler)
