"""The course of `llamamodel bench`: whom to ask, whether it can be, a copy where two are compared, what is printed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import click

from llamamodel_operator.api.findings import Severity, sentence
from llamamodel_operator.api.spec import Task
from llamamodel_operator.cli.bench_copy import (
    BadChangeError,
    NotServedError,
    a_copy,
    changed_copy,
    gpus_of,
    wait_until_ready,
)
from llamamodel_operator.cli.bench_report import Measured, bench_json, bench_text, disagree
from llamamodel_operator.cli.bench_requests import Workload, context_size_of, ordinary_tokens
from llamamodel_operator.cli.benching import Level, Target, measure, warm_up
from llamamodel_operator.cli.cluster import Cluster, ask_cluster
from llamamodel_operator.cli.exit_codes import FINE, FOUND
from llamamodel_operator.cli.live import NotReadable
from llamamodel_operator.cli.observing import pods_of
from llamamodel_operator.cli.pods import is_ready
from llamamodel_operator.cli.progress import Progress
from llamamodel_operator.cli.server_keys import ServerKeys
from llamamodel_operator.cli.servers import ModelServer, NotReadableError, server_at, server_of_pod
from llamamodel_operator.cli.terminal import note

__all__ = ["Plan", "run_at", "run_in_cluster"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the command line asks for; None where it says nothing."""

    name: str
    parallel: tuple[int, ...]
    prompt_tokens: int | None
    generate_tokens: int
    requests: int | None
    seed: int
    task: str | None
    changes: tuple[str, ...]
    timeout_sec: int
    config: str | None
    json: bool

    def workload(self, task: str) -> Workload:
        """For a task; an input that is embedded has to fit into one micro batch."""
        default = 512 if task == Task.GENERATE else 256
        return Workload(
            task=Task(task),
            prompt_tokens=self.prompt_tokens or default,
            generate_tokens=self.generate_tokens,
            seed=self.seed,
        )

    def requests_at(self, parallel: int) -> int:
        return max(parallel, self.requests or max(4, 2 * parallel))


def run_at(url: str, plan: Plan) -> int:
    """Measures what answers at an address. Raises NotReadableError."""

    async def run() -> int:
        # llama-server closes idle connections when it likes, and one that is kept holds one of its few HTTP threads
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            workload = plan.workload(plan.task or Task.GENERATE)
            target = await _target(plan.name, [server_at(url, session)], workload)
            return await _measure([target], plan, workload)

    return asyncio.run(run())


def run_in_cluster(plan: Plan, *, kubeconfig: str | None, context: str | None, namespace: str | None) -> int:
    """Measures a LlamaModel, or two. Raises NoClusterError and NotReadableError."""

    async def run(cluster: Cluster) -> int:
        model = await cluster.model(plan.name)
        workload = plan.workload(plan.task or model["spec"].get("task") or Task.GENERATE)
        try:
            servers = await _servers(cluster, model)
            first = await _target(plan.name, servers[:1] if plan.changes else servers, workload)
            if not plan.changes:
                return await _measure([first], plan, workload)
            return await _compare(cluster, model, first, plan, workload)
        except BadChangeError as error:
            raise click.UsageError(str(error)) from None
        except NotServedError as error:
            note(f"error: {error}")
            return FOUND

    return ask_cluster(run, kubeconfig=kubeconfig, context=context, namespace=namespace)


async def _compare(cluster: Cluster, model: Mapping[str, Any], first: Target, plan: Plan, workload: Workload) -> int:
    manifest = changed_copy(model, plan.changes)
    name, title = manifest["metadata"]["name"], ", ".join(plan.changes)
    _check(manifest, plan.config)
    note(
        f"{name} is made beside {plan.name}, with {title}; until it is deleted it takes {gpus_of(manifest)} more. "
        "One pod of each is measured, by turns."
    )
    progress = Progress()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(a_copy(cluster, manifest, tell=note))
        try:
            served = await wait_until_ready(cluster, name, timeout_sec=plan.timeout_sec, tell=progress.show)
        except NotServedError as error:
            raise NotServedError(f"there is nothing to compare, the copy does not become ready: {error}") from None
        finally:
            progress.clear()
        second = await _target(title, await _servers(cluster, served), workload)
        return await _measure([first, second], plan, workload)


def _check(manifest: Mapping[str, Any], config: str | None) -> None:
    """By the checks of `validate`. Raises BadChangeError."""
    from llamamodel_operator.cli.checking import a_checker
    from llamamodel_operator.cli.configuration import BadConfigurationError, read_configuration
    from llamamodel_operator.cli.manifests import Manifest

    try:
        configuration = read_configuration(config)
    except BadConfigurationError as error:
        raise click.UsageError(str(error)) from None
    with a_checker(configuration, lambda _key, _namespace: None) as checker:
        checked = checker.check(Manifest(raw=manifest))
    if checked.errors:
        raise BadChangeError("; ".join(map(sentence, checked.errors)))
    for finding in checked.findings:
        if finding.severity is Severity.WARNING:
            note(f"warning: {sentence(finding)}")


async def _servers(cluster: Cluster, model: Mapping[str, Any]) -> list[ModelServer]:
    """Those of its ready pods. Raises NotServedError where there is none."""
    name = model["metadata"]["name"]
    pods = await pods_of(cluster, model)
    if isinstance(pods, NotReadable):
        raise NotReadableError(f"the pods of {name} are not readable: {pods.why}")
    ready = [pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
    if not ready:
        phase = (model.get("status") or {}).get("phase") or "not seen by the operator yet"
        raise NotServedError(f"no pod of {name} answers: {phase}; `llamamodel status {name}` tells why")
    key = await ServerKeys(cluster).of(model)
    return [server_of_pod(cluster, pod["metadata"]["name"], key=key) for pod in ready]


async def _target(title: str, servers: Sequence[ModelServer], workload: Workload) -> Target:
    """Raises NotReadableError where the servers cannot do what is asked for."""
    tokens = await ordinary_tokens(servers[0])
    if workload.task is Task.GENERATE:
        room = await context_size_of(servers[0])
        wanted = workload.prompt_tokens + workload.generate_tokens
        if room is not None and wanted > room:
            raise NotReadableError(
                f"a slot of {servers[0].name} has room for {room:,} tokens, and a prompt of {workload.prompt_tokens:,} "
                f"with {workload.generate_tokens:,} generated does not fit: lower --prompt-tokens or --generate-tokens"
            )
    target = Target(title=title, servers=tuple(servers), tokens=tokens)
    await warm_up(target, workload)
    return target


async def _measure(targets: Sequence[Target], plan: Plan, workload: Workload) -> int:
    progress, levels = Progress(), [list[Level]() for _ in targets]
    try:
        for parallel in plan.parallel:
            requests = plan.requests_at(parallel)
            for target, measured in zip(targets, levels, strict=True):
                head = f"{target.title}, {parallel} parallel"

                def show(done: int, tokens: int, head: str = head, of: int = requests) -> None:
                    progress.show(f"{head}: {done} of {of} requests, {tokens:,} tokens")

                measured.append(await measure(target, workload, parallel=parallel, requests=requests, progress=show))
    finally:
        progress.clear()
    titles = [target.title for target in targets]
    results = [
        Measured(title=title, servers=tuple(server.name for server in target.servers), levels=tuple(found))
        for title, target, found in zip(titles, targets, levels, strict=True)
    ]
    click.echo(bench_json(results, workload) if plan.json else bench_text(results, workload))
    return FOUND if disagree(results) else FINE
