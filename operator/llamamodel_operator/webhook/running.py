"""The webhook of one replica, put together from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from llamamodel_operator.shell.client import ClusterClient
from llamamodel_operator.shell.health import Check
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.tls import ServingTls
from llamamodel_operator.webhook.admission import Review
from llamamodel_operator.webhook.keeper import CertificateKeeper, WebhookNames
from llamamodel_operator.webhook.server import serve_reviews

__all__ = ["running_webhook"]


@asynccontextmanager
async def running_webhook(
    *, settings: Settings, client: ClusterClient, metrics: Metrics, review: Review, leading: Callable[[], bool]
) -> AsyncIterator[Check]:
    """Serves and keeps its certificate until left; yields what /readyz asks. Raises OSError where the port is taken."""
    tls = ServingTls()
    keeper = CertificateKeeper(
        client=client,
        names=WebhookNames(name=settings.webhook_name, namespace=settings.lease_namespace),
        tls=tls,
        metrics=metrics,
        makes=settings.webhook == "self-signed",
        life=timedelta(seconds=settings.webhook_certificate_life_sec),
        leading=leading,
        now=lambda: datetime.now(UTC),
    )
    async with serve_reviews(
        host=settings.http_host, port=settings.webhook_port, tls=tls, review=review, metrics=metrics
    ):
        keeping = asyncio.create_task(keeper.run(), name="webhook-certificate")
        try:
            yield keeper.check
        finally:
            keeping.cancel()
