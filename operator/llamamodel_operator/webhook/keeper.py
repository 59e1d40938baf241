"""Keeps the certificate: every replica reads the Secret and shows what it holds; the leader renews and publishes it."""

from __future__ import annotations

import asyncio
import binascii
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from llamamodel_operator.api.labels import MANAGED_BY_LABEL, MANAGER
from llamamodel_operator.shell.certificates import CA, CERTIFICATE, KEY, expiry, renewed
from llamamodel_operator.shell.client import SECRETS, ApiError, ClusterClient, Resource
from llamamodel_operator.shell.leader import LeaseLostError
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.tls import ServingTls, UnusableCertificateError

__all__ = ["WEBHOOK_CONFIGURATIONS", "CertificateKeeper", "WebhookNames"]

WEBHOOK_CONFIGURATIONS = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    plural="validatingwebhookconfigurations",
    kind="ValidatingWebhookConfiguration",
)

_LOOKS_PER_LIFE = 96
"""Four within an overlap, by which a new certificate has to be seen (see shell/certificates)."""
_LONGEST_PAUSE_SEC = 30.0
_FIRST_PAUSE_SEC = 1.0
"""While there is no certificate yet."""
_TIMEOUT_SEC = 20.0

_log = logging.getLogger(__name__)
_FAILURES = (ApiError, LeaseLostError, aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True)
class WebhookNames:
    """The Service, the Secret and the ValidatingWebhookConfiguration, which have one name, and their namespace."""

    name: str
    namespace: str

    @property
    def dns(self) -> tuple[str, ...]:
        """As the API server calls the server: by its Service, or, beside it on one machine, by its port."""
        return (f"{self.name}.{self.namespace}.svc", "localhost")


class CertificateKeeper:
    """Looks again and again; what went wrong is said once, counted, and tried again.

    `makes` is false where cert-manager makes the Secret and publishes its authority: then the Secret is only read.
    `client` has the leader's fence. Writes of the Secret need no leader to be safe, since each names the version that
    it replaces; they are the leader's so that the logs tell one story. But where there is nothing that could be
    served, whoever sees it first makes it: a leader of an older version without a webhook never would, and the pod
    that is to replace it would wait for ever to become ready.
    """

    def __init__(
        self,
        *,
        client: ClusterClient,
        names: WebhookNames,
        tls: ServingTls,
        metrics: Metrics,
        makes: bool,
        life: timedelta,
        leading: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._names = names
        self._tls = tls
        self._metrics = metrics
        self._makes = makes
        self._life = life
        self._leading = leading
        self._now = now
        self._looked_leading = False
        """Whether the last look was a leader's."""
        self._problems: dict[str, str] = {}

    def check(self) -> str | None:
        """What /readyz says: why there is no certificate yet."""
        if self._tls.loaded:
            return None
        return f"no certificate yet; {self._problems.get('secret', 'the Secret was not read so far')}"

    async def run(self) -> None:
        """For ever."""
        pause = min(_LONGEST_PAUSE_SEC, self._life.total_seconds() / _LOOKS_PER_LIFE)
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_SEC):
                    await self.look()
            except Exception as error:  # whatever it is, the next look may go better
                self._report("secret", error)
            await self._pause(pause if self._tls.loaded else min(pause, _FIRST_PAUSE_SEC))

    async def _pause(self, seconds: float) -> None:
        """Ends early when this process leads by now: what it made before that is not published yet."""
        while seconds > 0 and (self._looked_leading or not self._leading()):
            await asyncio.sleep(min(seconds, 1.0))
            seconds -= 1.0

    async def look(self) -> None:
        """Reads the Secret, renews what is due, shows it, publishes its authority.

        Raises:
            ApiError, aiohttp.ClientError, LeaseLostError: the Secret cannot be read or written.
        """
        self._looked_leading = self._leading()
        configuration = await self._configuration() if self._makes and self._looked_leading else None
        secret = await self._client.get(SECRETS, namespace=self._names.namespace, name=self._names.name)
        data: Mapping[str, bytes] = _decoded(secret)
        if self._makes:
            data = await self._renewed(secret, data, published=_published(configuration))
        self._show(data)
        if configuration is not None and (authorities := data.get(CA)):
            await self._publish(configuration, authorities)

    async def _renewed(
        self, secret: Mapping[str, Any] | None, data: Mapping[str, bytes], *, published: bytes | None
    ) -> Mapping[str, bytes]:
        """The content of the Secret as it should be, written where it was not."""
        leads = self._leading()
        due = renewed(data, names=self._names.dns, now=self._now(), life=self._life, published=published)
        if due is None or not (leads or due.urgent):
            return data
        client = self._client if leads else self._client.unfenced()
        body = self._body(secret, due.data)
        try:
            await (client.create(SECRETS, body) if secret is None else client.replace(SECRETS, body))
        except ApiError as error:
            if error.status != 409:
                raise
            # Another replica was faster, and what it wrote is as good.
            return _decoded(await self._client.get(SECRETS, namespace=self._names.namespace, name=self._names.name))
        _log.info("wrote the Secret %s/%s: %s", self._names.namespace, self._names.name, "; ".join(due.reasons))
        return due.data

    def _body(self, secret: Mapping[str, Any] | None, data: Mapping[str, bytes]) -> dict[str, Any]:
        encoded = {name: b64encode(content).decode() for name, content in data.items()}
        if secret is not None:
            return {**secret, "data": {**(secret.get("data") or {}), **encoded}}
        return {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {
                "namespace": self._names.namespace,
                "name": self._names.name,
                "labels": {MANAGED_BY_LABEL: MANAGER},
            },
            "type": "kubernetes.io/tls",  # as cert-manager wants it, which could not change it
            "data": encoded,
        }

    def _show(self, data: Mapping[str, bytes]) -> None:
        certificate, key = data.get(CERTIFICATE, b""), data.get(KEY, b"")
        if not certificate or not key:
            where = f"{self._names.namespace}/{self._names.name}"
            self._report("secret", f"the Secret {where} holds no {CERTIFICATE} and {KEY}")
            return
        try:
            changed = self._tls.load(certificate=certificate, key=key)
        except UnusableCertificateError as error:
            self._report(
                "secret", f"what the Secret {self._names.namespace}/{self._names.name} holds is unusable: {error}"
            )
            return
        self._problems.pop("secret", None)
        end = expiry(certificate)
        if changed:
            _log.info("showing a certificate that is valid until %s", end)
            self._metrics.webhook_certificate_expiry.set(end.timestamp() if end else 0)

    async def _configuration(self) -> dict[str, Any] | None:
        """None where it cannot be had; an operator without one reviews nothing, and does all else."""
        try:
            found = await self._client.get(WEBHOOK_CONFIGURATIONS, namespace=None, name=self._names.name)
        except _FAILURES as error:
            self._report("configuration", error)
            return None
        if found is None:
            self._report("configuration", f"there is no {WEBHOOK_CONFIGURATIONS.kind} {self._names.name}")
        return found

    async def _publish(self, configuration: Mapping[str, Any], authorities: bytes) -> None:
        """Writes nothing where all webhooks of the configuration know the authorities already."""
        if all(_known(webhook) == authorities for webhook in _webhooks(configuration)):
            self._problems.pop("configuration", None)
            return
        bundle = b64encode(authorities).decode()
        metadata = configuration["metadata"]
        body = {
            "apiVersion": WEBHOOK_CONFIGURATIONS.api_version,
            "kind": WEBHOOK_CONFIGURATIONS.kind,
            # With the UID, so that one that was deleted meanwhile is not made anew.
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "webhooks": [
                {"name": webhook["name"], "clientConfig": {"caBundle": bundle}} for webhook in _webhooks(configuration)
            ],
        }
        try:
            await self._client.apply(WEBHOOK_CONFIGURATIONS, body)
        except _FAILURES as error:
            self._report("configuration", error)
            return
        self._problems.pop("configuration", None)
        _log.info("published the authority in the %s %s", WEBHOOK_CONFIGURATIONS.kind, self._names.name)

    def _report(self, step: str, problem: BaseException | str) -> None:
        """Counts each time, says it once."""
        self._metrics.webhook_certificate_failures.labels(step=step).inc()
        a_bug = None if isinstance(problem, (str, *_FAILURES)) else problem
        sentence = str(problem) or type(problem).__name__
        if self._problems.get(step) != sentence:
            what = "webhook's certificate" if step == "secret" else "authority of the webhook's certificate"
            _log.warning("the %s: %s", what, sentence, exc_info=a_bug)
        self._problems[step] = sentence


def _decoded(secret: Mapping[str, Any] | None) -> dict[str, bytes]:
    data = (secret or {}).get("data") or {}
    return {name: b64decode(content) for name, content in data.items()}


def _webhooks(configuration: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = configuration.get("webhooks") or []
    return found


def _known(webhook: Mapping[str, Any]) -> bytes:
    with suppress(binascii.Error):
        return b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "")
    return b""


def _published(configuration: Mapping[str, Any] | None) -> bytes | None:
    """What all webhooks of the configuration know, PEM; None where that is not known."""
    if configuration is None:
        return None
    bundles = {_known(webhook) for webhook in _webhooks(configuration)}
    return bundles.pop() if len(bundles) == 1 else b""
