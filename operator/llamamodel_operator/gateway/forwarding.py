"""One request, from its last byte to the last byte of its answer: whom it is for, what is changed on the way, and what
becomes of errors.

Requests are passed on byte for byte, unless something is put in (`core/gateway/shaping.py`). Answers are passed on as
they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway.errors import (
    INVALID_REQUEST,
    ApiError,
    model_not_found,
    rate_limited,
    timed_out,
    upstream_died,
    wrong_task,
)
from llamamodel_operator.core.gateway.picking import beginning_of, pick
from llamamodel_operator.core.gateway.routes import Routes, ServedModel, Target
from llamamodel_operator.core.gateway.shaping import refusal_of, shaped
from llamamodel_operator.core.gateway.tracing import REQUEST_ID
from llamamodel_operator.core.gateway.translate import LONGEST_ANSWER_BYTES, Asked, translate, translate_event
from llamamodel_operator.core.gateway.waits import WAIT_HEADER, WaitLimits
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.loads import LoadReader
from llamamodel_operator.gateway.messages import BODILESS, Request, Response, StreamedResponse
from llamamodel_operator.gateway.replies import EarlyStream, error_response
from llamamodel_operator.gateway.upstream import Answer, NoConnectionError, UpstreamDiedError, UpstreamSession
from llamamodel_operator.gateway.waiting import Unsent, Wait, WaitingRoom
from llamamodel_operator.shell.pod_keys import PodKey, key_header, no_pod_key

__all__ = ["TASKS", "Forwarder"]

TASKS: Mapping[str, Task | None] = {
    "/v1/chat/completions": Task.GENERATE,
    "/v1/completions": Task.GENERATE,
    "/v1/responses": Task.GENERATE,
    "/v1/messages": Task.GENERATE,
    "/v1/messages/count_tokens": Task.GENERATE,
    "/infill": Task.GENERATE,
    "/v1/embeddings": Task.EMBED,
    "/v1/rerank": Task.RERANK,
    "/tokenize": None,
    "/detokenize": None,
    "/apply-template": None,
}
"""Paths that take a POST, each with the task that a model must have; None: any. Others under /v1/ are for any."""

_BUSY_RETRY_SEC = 2
_LOADING = "model_loading"
_NOT_TAKEN = (_LOADING, "upstream_wants_key")
"""Codes of errors by which a pod says that it has not looked at the request: another one may take it. One that loads
may take it later."""
_THREADS_LEFT = 8
"""HTTP threads of a pod that are left for probes, metrics, the drain, and who asks it directly."""
_REQUEST_ID = REQUEST_ID.encode()
_NOT_PASSED_ON = frozenset(
    name.encode()
    for name in (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "content-length", "content-encoding", "accept-encoding"),
        *("authorization", "proxy-authorization", "x-api-key", "cookie", WAIT_HEADER, REQUEST_ID.lower()),
    )
)
"""Headers that end here: those of a connection (RFC 9110, 7.6.1), those that describe a body that is unpacked here, and
what a client shows to the gateway alone."""
_NAMES_NO_HEADER = ("keep-alive", "close")
_AT_ONCE_BYTES = 1 << 16
"""Shorter answers are read whole before they are passed on."""
_PASSED_BACK = ("content-type", "cache-control", "x-accel-buffering")
_WHOLE_EVENT = b"\n\n"
_LONGEST_EVENT_BYTES = 1 << 20


class _NotTakenError(Exception):
    """The pod has been started anew and loads the model, or wants a key."""

    def __init__(self, said: ApiError) -> None:
        super().__init__(said.message)
        self.said = said


class _BrokenOffError(Exception):
    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Forwarder:
    """Sends requests on. Lives in one event loop."""

    def __init__(
        self,
        *,
        directory: Directory,
        session: UpstreamSession,
        timeout_sec: int,
        max_in_flight_per_pod: int | None = None,
        gateways: int = 1,
        waits: WaitLimits | None = None,
        load_poll_sec: float = 0,
        pod_key: PodKey = no_pod_key,
    ) -> None:
        """Args:
        timeout_sec: within which each piece of an answer must come.
        max_in_flight_per_pod: requests that this gateway has at one pod at a time; None: what its threads leave.
        gateways: that send to the same pods.
        waits: for models that have no pod yet; None: no request waits.
        load_poll_sec: how often pods are asked for what they have to do; 0: never.
        pod_key: what is shown to the pods of a namespace whose models want a key.
        """
        self._directory = directory
        self._session = session
        self._timeout_sec = timeout_sec
        self._in_flight: dict[str, int] = {}
        self._turn = 0
        self._max_in_flight_per_pod = max_in_flight_per_pod
        self._gateways = gateways
        self._pod_key = pod_key
        self._loads = LoadReader(in_flight=self._in_flight, every_sec=load_poll_sec, pod_key=pod_key)
        self._waiting_room = WaitingRoom(
            directory=directory, has_place=self._has_place, limits=waits or WaitLimits(longest_sec=0)
        )

    async def end(self) -> None:
        """When the last request was answered."""
        await self._loads.end()

    async def answer(
        self, request: Request, exchange: Exchange, body: bytes, *, routes: Routes
    ) -> Response | StreamedResponse:
        """The answer to a POST; has been sent where it is a stream.

        Args:
            body: all of it.
            routes: to what the client may use.
        """
        read = _read(body, routes)
        if isinstance(read, ApiError):
            return error_response(read)
        document, name = read
        target = routes.find(name)
        if target is None:
            return error_response(
                model_not_found(name, names=tuple(routes.names()), full_names=routes.full_names(name))
            )
        model = target.model
        path, exchange.model = exchange.path, model
        task = TASKS.get(path)
        if task is not None and task != model.task:
            return error_response(wrong_task(task=Task(model.task), path=path))
        if task is Task.GENERATE and (refusal := refusal_of(document, model)):
            return error_response(refusal)
        stream = EarlyStream(request, exchange)
        commented = task is Task.GENERATE and document.get("stream") is True
        wait = Wait(name=name, stream=stream if commented else None)
        while isinstance(answer := await self._forward(request, exchange, body, document, target, stream), Unsent):
            found = await self._waiting_room.wait(request, exchange, target, wait, answer)
            if isinstance(found, ApiError):
                return await stream.end(error_response(found))
            target = found
        return await stream.end(answer)

    async def _forward(
        self,
        request: Request,
        exchange: Exchange,
        body: bytes,
        document: Mapping[str, Any],
        target: Target,
        stream: EarlyStream,
    ) -> Response | StreamedResponse | Unsent:
        """The answer of one of the model's pods, in the stream that may have begun."""
        exchange.model = model = target.model  # after a wait it may be another than was asked for
        if not self._directory.addresses(model):
            return Unsent()
        if target.adapter is not None:
            exchange.adapter = model.adapters[target.adapter]
        sent = shaped(document, path=exchange.path, target=target)
        if sent is not document:
            try:
                body = orjson.dumps(sent)
            except orjson.JSONEncodeError:  # it writes fewer levels than it reads
                return error_response(_invalid("The body has too many levels.", code="invalid_json"))
        tried: list[str] = []
        said: ApiError | None = None
        waits = False
        while True:
            addresses = [one for one in self._directory.addresses(model) if one not in tried]
            if not addresses:
                said = said or upstream_died()
                return Unsent(error=said, tried=frozenset(tried)) if waits else error_response(said)
            addresses = [one for one in addresses if self._has_place(model, one)]
            if not addresses:
                return Unsent(error=_all_full(self._most_at_a_pod(model)), tried=frozenset(tried), full=True)
            self._turn += 1
            address, exchange.why = pick(
                addresses,
                in_flight=self._loads.load(model, addresses),
                beginning=beginning_of(document) if len(addresses) > 1 else None,
                turn=self._turn,
            )
            exchange.pod = address
            exchange.tries += 1
            self._in_flight[address] = self._in_flight.get(address, 0) + 1
            try:
                return await self._ask(request, body, address, exchange, stream.begun)
            except NoConnectionError:
                waits = True
            except _NotTakenError as error:
                said = error.said
                waits = waits or said.code == _LOADING
            finally:
                self._leave(model, address)
            tried.append(address)  # it has not taken the request: another one may

    def _most_at_a_pod(self, model: ServedModel) -> int:
        """Requests of this gateway: below the pod's threads, of which probes and the drain need some."""
        part = max(1, (model.http_threads - _THREADS_LEFT) // self._gateways)
        return min(part, self._max_in_flight_per_pod or part)

    def _has_place(self, model: ServedModel, address: str) -> bool:
        return self._in_flight.get(address, 0) < self._most_at_a_pod(model)

    def _leave(self, model: ServedModel, address: str) -> None:
        """A request has ended at a pod; one that waits for a place there is told."""
        was_full = not self._has_place(model, address)
        self._in_flight[address] -= 1
        if not self._in_flight[address]:
            del self._in_flight[address]
        if was_full:
            self._waiting_room.freed(model.full_name)

    async def _ask(
        self,
        request: Request,
        body: bytes,
        address: str,
        exchange: Exchange,
        begun: StreamedResponse | None,
    ) -> Response | StreamedResponse:
        """The answer of one pod. Raises NoConnectionError and _NotTakenError, where it has not taken the request."""
        ends_here = _ends_here(request)
        headers = [header for header in request.raw_headers if header[0].lower() not in ends_here]
        headers.append((_REQUEST_ID, exchange.request_id.encode()))
        model = exchange.model
        if model is not None and model.locked:
            shown = key_header(self._pod_key(model.namespace))
            headers += [(name.encode(), value.encode()) for name, value in shown.items()]
        try:
            upstream = await self._session.post(
                address,
                exchange.target,
                headers=headers,
                body=body,
                timeout_sec=self._timeout_sec,
            )
        except UpstreamDiedError:
            return error_response(upstream_died())
        except TimeoutError:
            return error_response(timed_out(timeout_sec=self._timeout_sec))
        async with upstream:
            if upstream.status >= 400:
                refusal = translate(upstream.status, await _beginning(upstream), asked=_asked(exchange))
                exchange.translated = refusal
                if refusal.code in _NOT_TAKEN:
                    raise _NotTakenError(refusal)
                return error_response(refusal)
            return await self._pass_on(request, upstream, exchange, begun)

    async def _pass_on(
        self, request: Request, upstream: Answer, exchange: Exchange, begun: StreamedResponse | None
    ) -> Response | StreamedResponse:
        """The answer, piece by piece. What has begun can end with an error in its stream alone."""
        events = upstream.headers.get("content-type", "").startswith("text/event-stream")
        passed_back = {name: upstream.headers[name] for name in _PASSED_BACK if name in upstream.headers}
        headers = {**exchange.answer_headers, **passed_back}
        short = upstream.status in BODILESS or (upstream.length or _AT_ONCE_BYTES) < _AT_ONCE_BYTES
        if not events and (short or begun is not None):
            # One write, not three; what broke off is an error that can still be told.
            pieces: list[bytes] = []
            try:
                while piece := await self._piece(upstream):
                    pieces.append(piece)
            except _BrokenOffError as broken:
                return error_response(broken.error)
            whole = b"".join(pieces)
            exchange.passed(whole)
            return Response(status=upstream.status, body=whole, headers=headers)
        response, checked = begun, _Events(exchange) if events else None
        try:
            while piece := await self._piece(upstream):
                if checked is not None and not (piece := checked.after(piece)):
                    continue
                if response is None:
                    response = _begun(request, upstream, exchange, headers, events=events)
                await response.write(piece)
                exchange.passed(piece)
            rest = b"" if checked is None else checked.rest()
        except _BrokenOffError as broken:
            if response is None:
                return error_response(broken.error)
            exchange.error = broken.error
            if not events:
                request.connection.break_off()
                return response
            await response.end(broken.error.event(path=exchange.path))
            return response
        if response is None:
            response = _begun(request, upstream, exchange, headers, events=events)
        await response.end(rest)
        if rest:
            exchange.passed(rest)
        return response

    async def _piece(self, upstream: Answer) -> bytes:
        """The next one of an answer, empty at its end. Raises _BrokenOffError."""
        try:
            return await upstream.read()
        except TimeoutError:
            raise _BrokenOffError(timed_out(timeout_sec=self._timeout_sec)) from None
        except UpstreamDiedError:
            raise _BrokenOffError(upstream_died()) from None


def _begun(
    request: Request, upstream: Answer, exchange: Exchange, headers: Mapping[str, str], *, events: bool
) -> StreamedResponse:
    length = None if events else upstream.length
    response = StreamedResponse(request, status=upstream.status, headers=headers, length=length)
    exchange.begin(response, events=events)
    return response


def _asked(exchange: Exchange) -> Asked:
    task = Task(exchange.model.task) if exchange.model else Task.GENERATE
    return Asked(path=exchange.path, task=task, retry_after_sec=_BUSY_RETRY_SEC)


def _ends_here(request: Request) -> frozenset[bytes]:
    """Headers that are not passed on, with those that the client has for this connection alone (RFC 9110, 7.6.1)."""
    named = request.headers.get("Connection")
    if named is None or named.lower() in _NAMES_NO_HEADER:
        return _NOT_PASSED_ON
    return _NOT_PASSED_ON.union(name.strip().lower().encode(errors="surrogateescape") for name in named.split(","))


def _read(body: bytes, routes: Routes) -> tuple[Mapping[str, Any], str] | ApiError:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _invalid(f"The body is not JSON: {error}", code="invalid_json")
    if not isinstance(document, dict):
        return _invalid("The body must be a JSON object.", code="invalid_json")
    name = document.get("model")
    if not isinstance(name, str) or not name:
        known = ", ".join(f"`{name}`" for name, _ in zip(routes.names(), range(10), strict=False))
        return _invalid(f"`model` must name one of the models: {known or 'there is none'}.", param="model")
    return document, name


def _all_full(most: int) -> ApiError:
    return rate_limited(
        f"each pod of the model has {most} from this gateway, which is the limit", retry_after_sec=_BUSY_RETRY_SEC
    )


class _Events:
    """The events of a stream as they come, each whole, errors among them in OpenAI's form."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._asked = _asked(exchange)
        self._rest = b""

    def after(self, piece: bytes) -> bytes:
        """What is whole once this has come; may be empty."""
        text = self._rest + piece if self._rest else piece
        found = text.rfind(_WHOLE_EVENT)
        end = found + len(_WHOLE_EVENT) if found >= 0 else 0
        if len(text) - end > _LONGEST_EVENT_BYTES:
            end = len(text)
        self._rest = text[end:]
        return self._translated(text[:end])

    def rest(self) -> bytes:
        """What is left at the end."""
        return self._translated(self._rest)

    def _translated(self, events: bytes) -> bytes:
        return _translated(events, self._asked, self._exchange) if b"error" in events else events


def _translated(events: bytes, asked: Asked, exchange: Exchange) -> bytes:
    parts = []
    for event in events.split(_WHOLE_EVENT):
        error = translate_event(event, asked=asked) if event.strip() else None
        if error is not None:
            exchange.translated = exchange.error = error
        parts.append(event if error is None else error.event(path=asked.path).removesuffix(_WHOLE_EVENT))
    return _WHOLE_EVENT.join(parts)


async def _beginning(upstream: Answer) -> bytes:
    """Of a body, as much as counts; what breaks off says what it has said."""
    found = bytearray()
    with suppress(UpstreamDiedError, TimeoutError):
        while len(found) < LONGEST_ANSWER_BYTES and (piece := await upstream.read()):
            found += piece
    return bytes(found)


def _invalid(message: str, *, code: str | None = None, param: str | None = None) -> ApiError:
    return ApiError(status=400, message=message, type=INVALID_REQUEST, code=code, param=param)
