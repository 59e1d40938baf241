"""The webhook's HTTPS server: POST /validate, and nothing else. It asks nobody anything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.tls import ServingTls
from llamamodel_operator.webhook.admission import NotAReviewError, Review, answer

__all__ = ["serve_reviews"]

_BODY_BYTES = 3 * 1024 * 1024 + 65_536
"""Two objects of the size that etcd takes (1.5 MiB each), and what is around them."""
_READ_SEC = 10.0
"""For the body to arrive; the API server gives up after 5."""
_KEEPALIVE_SEC = 180.0
"""Longer than the 90 s after which the API server closes a connection that it does not use: were we to close it, a
request that is just on its way would be lost."""
_THREADS = 8
"""Reviews at once. They take turns every few milliseconds, and one that waits for the sandbox of templates needs no
turn, so that a slow one does not hold up the others."""
_LINGER_SEC = 3.0
"""For the news that this pod ends to reach all nodes; requests that come until then are answered."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serve_reviews(
    *, host: str, port: int, tls: ServingTls, review: Review, metrics: Metrics, linger_sec: float = _LINGER_SEC
) -> AsyncIterator[int]:
    """Serves until left, and a little longer; yields the port. Raises OSError where the port is taken."""
    server = _Server(review=review, metrics=metrics)
    application = web.Application(client_max_size=_BODY_BYTES)
    application.add_routes([web.post("/validate", server.validate)])
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEPALIVE_SEC,
        shutdown_timeout=_READ_SEC,
        logger=_quiet,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls.context)
        await site.start()
        bound: int = runner.addresses[0][1]
        _log.info("reviewing LlamaModels on port %d", bound)
        yield bound
    finally:
        server.closing = True
        await asyncio.sleep(linger_sec)
        await runner.cleanup()
        server.threads.shutdown(wait=False, cancel_futures=True)


_quiet = logging.getLogger(f"{__name__}.http")
"""aiohttp's own words about clients that send garbage, or vanish; with stack traces, for nobody here."""
_quiet.setLevel(logging.CRITICAL)


class _Server:
    def __init__(self, *, review: Review, metrics: Metrics) -> None:
        self._review = review
        self._metrics = metrics
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="review")
        self.closing = False

    async def validate(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        result, response = await self._answer(request)
        if self.closing:
            response.force_close()  # so that the next request goes to a pod that stays
        self._metrics.webhook_reviews.labels(result=result).inc()
        self._metrics.webhook_review_seconds.observe(time.perf_counter() - started)
        return response

    async def _answer(self, request: web.Request) -> tuple[str, web.Response]:
        try:
            async with asyncio.timeout(_READ_SEC):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return "malformed", _text(413, f"expected at most {_BODY_BYTES} bytes")
        except TimeoutError:
            return "malformed", _text(408, f"expected the whole body within {_READ_SEC:g} s")
        except (web.RequestPayloadError, ConnectionError, ValueError):
            return "malformed", _text(400, "the body could not be read to its end")
        try:
            done = await asyncio.get_running_loop().run_in_executor(
                self.threads, partial(answer, body, review=self._review)
            )
        except NotAReviewError as error:
            return "malformed", _text(400, str(error))
        except Exception:
            # No verdict is better than a made-up one: the API server does what failurePolicy says.
            _log.error("a review failed; this is a bug of the operator, please report it", exc_info=True)
            return "failed", _text(500, "the review failed, which is a bug of the operator; its log says more")
        return done.result, web.Response(body=done.body, content_type="application/json")


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")
