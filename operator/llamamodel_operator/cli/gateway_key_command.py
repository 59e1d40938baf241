"""The command `gateway-key`: a new API key for the gateway, and the Secret by which the gateway knows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from llamamodel_operator.cli.exit_codes import FINE
from llamamodel_operator.cli.options import Command, examples, output_option

__all__ = ["gateway_key"]

_SECRET = "llamamodel-gateway-keys"  # noqa: S105 (the name of an object)
_ENTRY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}")
"""A key of a Secret's data; those that begin with two dots are the kubelet's."""
_KEY_BYTES = 32
_MOST = 1_000_000


class _Entry(click.ParamType[str]):
    """The name of an entry in a Secret."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _ENTRY.fullmatch(value):
            self.fail(f"{value!r} cannot name an entry of a Secret: use letters, digits, -, _ and .", param, ctx)
        return str(value)


@click.command(
    "gateway-key",
    cls=Command,
    short_help="Makes an API key for the gateway.",
    epilog=examples(
        "llamamodel gateway-key ci --namespace team-a --requests-per-minute 60 > ci.yaml",
        "llamamodel gateway-key alice --model team-a/qwen3 --concurrency 4 -o json",
        "",
        "llamamodel gateway-key ci |",
        "  kubectl apply --server-side --field-manager gateway-key-ci -n llamamodel-system -f -",
    ),
)
@click.argument("name", type=_Entry())
@click.option("--namespace", "namespaces", multiple=True, metavar="NAMESPACE", help="Whose models it may use.  [all]")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Which it may use, by name.  [all]")
@click.option("--requests-per-minute", type=click.IntRange(1, _MOST), metavar="N", help="It may send.  [any number]")
@click.option("--concurrency", type=click.IntRange(1, _MOST), metavar="N", help="Requests at a time.  [any number]")
@click.option("--secret", default=_SECRET, metavar="SECRET", help=f"The Secret's name.  [{_SECRET}]")
@output_option("yaml", "json", default="yaml")
def gateway_key(
    name: str,
    namespaces: Sequence[str],
    models: Sequence[str],
    requests_per_minute: int | None,
    concurrency: int | None,
    secret: str,
    output: str,
) -> int:
    """Makes a key, which NAME stands for in logs and metrics, and a Secret with an entry for it.

    The key goes to standard error, this once: the Secret holds its SHA-256 alone. Nothing is sent to a cluster. Each
    key applied with a field manager of its own is added to those that the Secret has; without --server-side, kubectl
    takes the others away.

    --namespace and --model may be given several times. With both, the key may use those models of those namespaces.
    """
    import base64
    import secrets

    from llamamodel_operator.cli.terminal import json_text, note
    from llamamodel_operator.cli.yaml_text import yaml_text
    from llamamodel_operator.core.gateway.keys import KeyEntry, digest

    key = f"llm-{secrets.token_urlsafe(_KEY_BYTES)}"
    entry = KeyEntry(
        sha256=digest(key),
        namespaces=list(namespaces) or None,
        models=list(models) or None,
        requests_per_minute=requests_per_minute,
        concurrency=concurrency,
    )
    text = yaml_text(entry.model_dump(by_alias=True, exclude_none=True))
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "type": "Opaque",
        # not stringData, of which server-side apply forgets whose it is
        "data": {name: base64.b64encode(text.encode()).decode()},
    }
    note(f"The key of {name}, shown this once:")
    note(key)
    click.echo(json_text(manifest) if output == "json" else yaml_text(manifest).rstrip())
    return FINE
