"""Asks running llama-servers what they are: whether they serve their model, their build, what memory they took, whether
they have a GPU, and the scales of their LoRA adapters, which are kept as the spec has them.

Passes never wait for it: they get what is known, and another pass is asked for when that changes. A server that cannot
be asked is unknown, which is no error: a mesh, a policy or an API key may keep the operator out of a pod that serves.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
import orjson

from llamamodel_operator.core.engine.builds import build_of_info
from llamamodel_operator.core.engine.proof import Expected, answer_problem, models_problem, small_request
from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.observed import Pod, Proof, ServerReport
from llamamodel_operator.shell.client import ApiError
from llamamodel_operator.shell.log_reader import LoadLog
from llamamodel_operator.shell.pod_keys import PodKey, key_header, no_pod_key
from llamamodel_operator.shell.store import Key

__all__ = ["Prober"]

_log = logging.getLogger(__name__)

_CONNECT_SEC = 1.0
_ANSWER_SEC = 3.0
"""For one request, with its connection and its whole answer."""
_AT_ONCE = 32
"""Requests at the same time that are answered at once or not at all."""
_PATIENT_AT_ONCE = 16
"""Requests at the same time that are waited for. They have places of their own: a server that hangs keeps one long."""
_LOGS_AT_ONCE = 8
"""Logs that are read at the same time: a MiB of memory each."""
_LARGEST_ANSWER_BYTES = 1 << 20
_QUICK = aiohttp.ClientTimeout(total=_ANSWER_SEC, sock_connect=_CONNECT_SEC)
_REREAD_SEC = 60.0
"""How long scales are taken to be as last read: anybody who reaches the server may change them."""
_LOG_SEC = 20.0
"""For reading one log: the API server waits for a kubelet that does not answer."""
_LOG_TRIES = 5
"""For a log that cannot be read now. It is not worth more."""
_REQUEST_SEC = 120.0
"""For the small request: it waits for a slot like any other; and for all others where the server is busy."""
_PATIENT = aiohttp.ClientTimeout(total=_REQUEST_SEC, sock_connect=_CONNECT_SEC)
_SOON_SEC = 1.0
_UNPROVEN_TRIES = 2
"""After so many a server that cannot be asked, or does not answer, is called that. A network policy takes a moment to
know a new pod."""
_FIRST_RETRY_SEC = 5.0
_LAST_RETRY_SEC = 300.0
_UNPROVEN_RETRY_SEC = 30.0
"""At most, where somebody waits to hear that the server answers."""


class Timer(Protocol):
    """What can still be called off."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls back after so many seconds, as an event loop's method of that name."""

ReadLog = Callable[[str, str], Awaitable[LoadLog]]
"""What the log of the pod with this namespace and name tells of its start. May raise ApiError."""


class _AnswerError(Exception):
    """The server answered, but not what is needed."""


class _BusyError(Exception):
    """The server cannot take requests for the moment."""


class _SlowError(Exception):
    """The server has taken the connection, and did not answer in time."""


class _DoorError(_AnswerError):
    """It stands with the server's API keys otherwise than it must."""

    proof: Proof


class _LockedOutError(_DoorError):
    """The server wants an API key that the operator has not."""

    proof = Proof.LOCKED


class _OpenError(_DoorError):
    """The server must want an API key, and answers without one."""

    proof = Proof.OPEN


@dataclass(eq=False, kw_only=True)
class _Server:
    """One run of a llama-server.

    Attributes:
        key: of its LlamaModel.
        pod: as last seen.
        wanted: scales of its adapters; None where it has none.
        expected: what it must answer to count as serving its model; None where that is not asked.
        locked: whether it must want the key of its namespace.
        unproven: how often it was not reached for that, and how often it was silent.
        named: it was asked for its build.
        report: what it said; None before it said anything.
        log: what its log tells; None while that is still to be read.
        due: set when it shall be asked.
        task: asks it; has ended where there is nothing more to learn.
        reading: reads its log; None where that is not asked.
    """

    key: Key
    pod: Pod
    wanted: tuple[float, ...] | None
    expected: Expected | None = None
    locked: bool = False
    unproven: Counter[Proof] = field(default_factory=Counter)
    named: bool = False
    report: ServerReport | None = None
    log: LoadLog | None = field(default_factory=LoadLog)
    due: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    reading: asyncio.Task[None] | None = None

    @property
    def proven(self) -> bool:
        return self.expected is None or (self.report is not None and self.report.proof is Proof.ANSWERS)

    def learns(self, **found: Any) -> None:
        """Something new of it is known."""
        self.report = replace(self.report or ServerReport(), **found)

    @property
    def known(self) -> ServerReport | None:
        """What is known of it, from itself and from its log; None before anything is."""
        if self.report is None and self.log in (None, LoadLog()):
            return None
        log = self.log or LoadLog()
        return replace(
            self.report or ServerReport(), measured=log.measured, offload=log.offload, log_pending=self.log is None
        )

    def is_run_of(self, pod: Pod) -> bool:
        return (self.pod.address, self.pod.container_id) == (pod.address, pod.container_id)


class Prober:
    """What running servers say of themselves. Lives in one event loop; `close` ends what it began.

    Args:
        again: told the LlamaModel of which something new is known.
        read_log: reads the log of a pod; without it no log is read.
        pod_key: what is shown to servers that want a key.
        call_later: default is the event loop's.
        port: TCP port of each server.
    """

    def __init__(
        self,
        *,
        again: Callable[[Key], None],
        read_log: ReadLog | None = None,
        pod_key: PodKey = no_pod_key,
        call_later: CallLater | None = None,
        port: int = PORT,
    ) -> None:
        self._again = again
        self._read_log = read_log
        self._pod_key = pod_key
        self._call_later = call_later
        self._port = port
        self._servers: dict[Key, dict[str, _Server]] = {}
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._free_to_wait = asyncio.Semaphore(_PATIENT_AT_ONCE)
        self._free_to_read = asyncio.Semaphore(_LOGS_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def reports(
        self,
        key: Key,
        pods: Sequence[Pod],
        *,
        scales: tuple[float, ...] | None,
        read_log: bool = False,
        expected: Expected | None = None,
        locked: bool = False,
    ) -> Mapping[str, ServerReport]:
        """What is known of the ready pods among these, by name; others of this LlamaModel are forgotten.

        Args:
            key: the LlamaModel.
            pods: all its pods that shall have these scales.
            scales: of the adapters, in their order; None where there are none. A scale that a server has as well as a
                32-bit float can hold it is reported as it is written here.
            read_log: whether their logs can be expected to tell something. Each is read once.
            expected: what they must answer to count as serving their model. Each is asked once, when it has answered.
            locked: whether they must want the key of their namespace: no other server is shown it.
        """
        before, servers = self._servers.pop(key, {}), dict[str, _Server]()
        for pod in pods:
            if not pod.ready or not pod.address:
                continue
            server = before.get(pod.name)
            if server is None or not server.is_run_of(pod):
                server = _Server(key=key, pod=pod, wanted=scales, expected=expected, locked=locked)
                self._ask_soon(server)
                if read_log and self._read_log is not None:
                    self._read_soon(server, self._read_log)
            else:
                del before[pod.name]
                if server.wanted != scales:
                    server.wanted = scales
                    self._ask_soon(server)
            servers[pod.name] = server
        if servers:
            self._servers[key] = servers
        _end(before.values())
        return {
            name: replace(known, scales=_as_written(known.scales, scales or ()))
            for name, server in servers.items()
            if (known := server.known) is not None
        }

    def keys_changed(self) -> None:
        """What `pod_key` says is another: who still has something to learn from a locked server asks it at once."""
        for server in [server for servers in self._servers.values() for server in servers.values()]:
            if server.locked and server.task is not None and not server.task.done():
                self._ask_soon(server)

    def forget(self, key: Key) -> None:
        """The LlamaModel is gone."""
        _end(self._servers.pop(key, {}).values())

    async def close(self) -> None:
        """Asks nothing any more."""
        servers = [server for servers in self._servers.values() for server in servers.values()]
        tasks = [task for server in servers for task in (server.task, server.reading) if task is not None]
        for key in tuple(self._servers):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _ask_soon(self, server: _Server) -> None:
        server.due.set()
        if server.task is None or server.task.done():
            name = f"ask-{server.key}-{server.pod.name}"
            server.task = asyncio.get_running_loop().create_task(self._keep_asking(server), name=name)

    async def _keep_asking(self, server: _Server) -> None:
        """Until all is known; with adapters, until cancelled."""
        failures, asked_for = 0, server.wanted
        while True:
            server.due.clear()
            if server.wanted != asked_for:
                failures, asked_for = 0, server.wanted
            before = server.report
            try:
                await self._ask(server, asked_for)
            except Exception as error:
                delay = min(_FIRST_RETRY_SEC * 2.0**failures, _LAST_RETRY_SEC)
                if isinstance(error, _LockedOutError):
                    delay = _LAST_RETRY_SEC
                elif not server.proven:
                    known = server.report is not None and server.report.proof is not None
                    delay = min(delay, _UNPROVEN_RETRY_SEC) if known else _SOON_SEC
                if failures == 0:
                    said = f"pod {server.pod.name} did not say what it was asked for, which stays unknown for now"
                    _tell(server, said, error)
                failures = min(failures + 1, 32)
            else:
                failures, delay = 0, _REREAD_SEC
            if server.report != before:
                self._again(server.key)
            if failures == 0 and server.wanted is None:
                return
            await self._wait(server.due, delay)

    def _read_soon(self, server: _Server, read_log: ReadLog) -> None:
        server.log = None
        name = f"ask-{server.key}-{server.pod.name}-log"
        server.reading = asyncio.get_running_loop().create_task(self._keep_reading(server, read_log), name=name)

    async def _keep_reading(self, server: _Server, read_log: ReadLog) -> None:
        """Until its log was read once, or cannot be. What the server itself says does not wait for it, nor the other
        way round."""
        found, delay = LoadLog(), _FIRST_RETRY_SEC
        for tries in range(1, _LOG_TRIES + 1):
            try:
                async with self._free_to_read, asyncio.timeout(_LOG_SEC):
                    found = await read_log(server.key.namespace, server.pod.name)
                break
            except Exception as error:
                if tries == _LOG_TRIES or (isinstance(error, ApiError) and not error.transient):
                    _tell(server, f"the log of pod {server.pod.name} cannot be read", error)
                    break
            await self._wait(asyncio.Event(), delay)
            delay *= 2
        server.log = found
        self._again(server.key)

    async def _wait(self, due: asyncio.Event, delay: float) -> None:
        """Until it is due, or `delay` seconds have passed."""
        call_later = self._call_later or asyncio.get_running_loop().call_later
        timer = call_later(delay, due.set)
        try:
            await due.wait()
        finally:
            timer.cancel()

    async def _ask(self, server: _Server, wanted: tuple[float, ...] | None) -> None:
        """Learns what is not known yet, and puts the scales right.

        Raises:
            aiohttp.ClientError, OSError: it cannot be reached.
            _SlowError: it can, and does not answer in time.
            _AnswerError: it can, and does not say what is needed.
            _BusyError: not for the moment.
        """
        fault = None if server.proven else await self._prove(server)
        if not server.named:
            build = _build(await self._request(server, "GET", "/props"))
            server.learns(build=build)
            server.named = True
        if wanted is not None:
            await self._keep_scales(server, wanted)
        if fault is not None:
            raise fault

    async def _keep_scales(self, server: _Server, wanted: tuple[float, ...]) -> None:
        said = await self._read_scales(server, wanted)
        if said == _singles(wanted):
            return
        # Scales of adapters that are not named would become 0.
        await self._request(
            server, "POST", "/lora-adapters", [{"id": index, "scale": scale} for index, scale in enumerate(wanted)]
        )
        said = await self._read_scales(server, wanted)  # success is answered for unknown adapters as well
        if said != _singles(wanted):
            raise _AnswerError(f"it was told the adapter scales {_shown(wanted)}, and has {_shown(said)}")
        _log.info("pod %s: adapter scales are %s now", server.pod.name, _shown(wanted), extra=_about(server))

    async def _prove(self, server: _Server) -> _AnswerError | None:
        """Whether it serves its model: healthy, under the right name, and with an answer to one small request. What is
        wrong with its answers is no reason not to ask for the rest."""
        expected = server.expected
        assert expected is not None  # noqa: S101 (else there is nothing to prove)
        path, body = small_request(expected)
        asked_to_work = False
        try:
            try:
                problem = await self._name_problem(server, expected)
            except _SlowError:  # all its HTTP threads are taken, or its one core is, or it hangs: patience tells
                problem = await self._name_problem(server, expected, patient=True)
            if not problem:
                asked_to_work = True
                problem = answer_problem(await self._request(server, "POST", path, body, work=True), expected)
        except _DoorError as error:
            server.learns(proof=error.proof, problem=str(error))
            raise
        except _AnswerError as error:
            problem = str(error)
        except (_BusyError, _SlowError, aiohttp.ClientError, OSError) as error:
            if asked_to_work:
                proof, problem = Proof.SILENT, f"POST {path}: it took a small request and did not answer it"
            else:
                proof = Proof.SILENT if isinstance(error, _SlowError) else Proof.NOT_REACHED
                problem = str(error) or type(error).__name__
            server.unproven[proof] += 1
            known = server.report.proof if server.report is not None else None
            # What is said of it does not change with each try: that would be a write of the status each time.
            if server.unproven[proof] >= _UNPROVEN_TRIES and known is not proof:
                server.learns(proof=proof, problem=problem)
            raise
        server.learns(proof=Proof.FAILS if problem else Proof.ANSWERS, problem=problem)
        return _AnswerError(problem) if problem else None

    async def _name_problem(self, server: _Server, expected: Expected, *, patient: bool = False) -> str:
        """What is wrong with the name of its model; empty where nothing is. It must be healthy, and shut to who shows
        no key where it must want one. Raises _OpenError where it is not."""
        if server.locked:
            await self._request(server, "GET", "/props", patient=patient, bare=True)
            if self._pod_key(server.key.namespace) is None:
                raise _LockedOutError(_without_key(server))
        await self._request(server, "GET", "/health", patient=patient)
        return models_problem(await self._request(server, "GET", "/v1/models", patient=patient), expected)

    async def _read_scales(self, server: _Server, wanted: tuple[float, ...]) -> tuple[float, ...]:
        said = _scales(await self._request(server, "GET", "/lora-adapters"), number=len(wanted))
        server.learns(scales=said)
        return said

    async def _request(
        self,
        server: _Server,
        method: str,
        path: str,
        body: object = None,
        *,
        patient: bool = False,
        work: bool = False,
        bare: bool = False,
    ) -> Any:
        """The answer's JSON; None where this build has no such path, or was told not to serve it.

        Args:
            patient: a busy server is waited for.
            work: it is a request that the model works on, which takes its time and must be served.
            bare: it shows no key, and must not be served; there is no answer then.
        """
        waits = patient or work
        try:
            async with self._free_to_wait if waits else self._free:
                bound = _PATIENT if waits else _QUICK
                return await self._exchange(server, method, path, body, work=work, bare=bare, bound=bound)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):
                raise  # no connection was made
            limit = _REQUEST_SEC if waits else _ANSWER_SEC
            raise _SlowError(f"{method} {path}: it took the connection and gave no answer within {limit:g} s") from None

    async def _exchange(
        self,
        server: _Server,
        method: str,
        path: str,
        body: object,
        *,
        work: bool,
        bare: bool,
        bound: aiohttp.ClientTimeout,
    ) -> Any:
        if self._session is None:
            self._session = _new_session()
        key = self._pod_key(server.key.namespace) if server.locked and not bare else None
        async with self._session.request(
            method,
            f"http://{_host(server.pod.address)}:{self._port}{path}",
            data=None if body is None else orjson.dumps(body),
            headers=key_header(key),
            allow_redirects=False,
            timeout=bound,
        ) as response:
            if response.status == 503:
                raise _BusyError(f"{method} {path}: it takes no requests for the moment (503)")
            if bare and response.status != 401:
                raise _OpenError(f"{method} {path} without a key: expected status 401, found {response.status}")
            if response.status == 401 and not bare:
                raise _LockedOutError(_wrong_key(server) if key else "it wants an API key")
            if bare or (response.status in (404, 501) and not work):
                return None
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > _LARGEST_ANSWER_BYTES:
                    raise _AnswerError(f"{method} {path}: the answer is larger than {_LARGEST_ANSWER_BYTES} bytes")
            if response.status != 200:
                said = _message(content)
                raise _AnswerError(
                    f"{method} {path}: expected status 200, found {response.status}" + (f": {said}" if said else "")
                )
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise _AnswerError(f"{method} {path}: the answer is not JSON") from None


def _without_key(server: _Server) -> str:
    return f"it wants an API key, and the operator has none for the namespace {server.key.namespace}"


def _wrong_key(server: _Server) -> str:
    return f"it does not take the API key that the operator has for the namespace {server.key.namespace}"


def _new_session() -> aiohttp.ClientSession:
    """Connections are not kept: an idle one would hold one of the server's few HTTP threads. What a pod answers is
    not trusted: no cookies, no redirects, nothing is unpacked."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
        auto_decompress=False,
    )


def _message(content: bytes | bytearray) -> str:
    """What an error says, shortened; empty where it is none of llama-server's."""
    try:
        said = orjson.loads(content)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    return said[:300] if isinstance(said, str) else ""


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _build(answer: Any) -> int | None:
    info = answer.get("build_info") if isinstance(answer, dict) else None
    return build_of_info(info) if isinstance(info, str) else None


def _scales(answer: Any, *, number: int) -> tuple[float, ...]:
    """Scales by the place of the adapter. Raises _AnswerError where it is not exactly as many as there should be."""
    listed = answer if isinstance(answer, list) else []
    found: dict[int, float] = {}
    for adapter in listed:
        match adapter:
            case {"id": int(index), "scale": int(scale) | float(scale)}:
                found[index] = _single(scale)
    if sorted(found) != list(range(number)) or len(listed) != number:
        raise _AnswerError(f"GET /lora-adapters: expected {number} adapters with their scales, found {len(found)}")
    return tuple(found[index] for index in range(number))


def _single(value: float) -> float:
    """As llama-server stores a scale: as a 32-bit float."""
    try:
        (single,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return float("inf")
    return float(single)


def _singles(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(_single, values))


def _as_written(said: tuple[float, ...], wanted: tuple[float, ...]) -> tuple[float, ...]:
    if len(said) != len(wanted):
        return said
    return tuple(mine if _single(mine) == theirs else theirs for mine, theirs in zip(wanted, said, strict=True))


def _shown(scales: Iterable[float]) -> str:
    return ", ".join(format(scale, "g") for scale in scales)


def _tell(server: _Server, what: str, error: Exception) -> None:
    expected = isinstance(
        error, (_AnswerError, _BusyError, _SlowError, ApiError, aiohttp.ClientError, OSError, ValueError)
    )
    _log.info(
        "%s: %s", what, str(error) or type(error).__name__, extra=_about(server), exc_info=None if expected else error
    )


def _about(server: _Server) -> dict[str, str]:
    return {"model": str(server.key)}


def _end(servers: Iterable[_Server]) -> None:
    for server in servers:
        for task in (server.task, server.reading):
            if task is not None:
                task.cancel()
