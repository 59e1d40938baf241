"""Runs the examination of chat templates in a process of its own, bounded in time and memory.

A template is a program that somebody else wrote. jinja2's sandbox keeps it from the interpreter, not from loops
without end or from filling the memory: that takes a process that can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from llamamodel_operator.core.text.problem import Problem, text_problem
from llamamodel_operator.core.text.template import TemplateReport, examine_template

__all__ = ["SandboxUnavailableError", "TemplateSandbox"]

TIMEOUT_SEC = 2.0
"""For one template. One of usual size takes 10 to 50 ms the first time; afterwards the answer is in the cache."""

_START_TIMEOUT_SEC = 30.0
"""For the worker to come up; the first time it compiles what it imports."""

_WORKERS = 2
"""So that a template that takes all of its time does not hold up the reviews of all others."""

_MEMORY_BYTES = 320 * 1024 * 1024
"""Address space of a worker. It starts with about 100 MiB. All of them together, beside the operator itself, stay below
the memory limit of the chart. A dense template of 500 KiB takes 220 MiB, and more than its time."""

_CACHED = 256
_HEADER = struct.Struct("!I")
_MAX_FRAME_BYTES = 16 * 1024 * 1024
_READY = b"ready"


class SandboxUnavailableError(RuntimeError):
    """A template could not be examined, through no fault of its own; the next try may succeed."""


class TemplateSandbox:
    """A few worker processes, each started when it is needed first, started anew after it had to be killed.

    Safe to use from several threads; they wait where all workers are busy, and a text that is just being examined is
    not examined twice. Close it, or use it in a `with` block. A worker ends when its parent does, however that ends:
    it reads the end of its input, or meets its own limit of CPU time.
    """

    def __init__(self, *, timeout_sec: float = TIMEOUT_SEC) -> None:
        self._lock = threading.Lock()
        self._reports: OrderedDict[bytes, TemplateReport] = OrderedDict()
        self._under_way: dict[bytes, Future[TemplateReport]] = {}
        self._workers = tuple(_Worker(timeout_sec) for _ in range(_WORKERS))
        self._idle: LifoQueue[_Worker] = LifoQueue()  # the last one used comes first: others start only if need be
        for worker in reversed(self._workers):
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, after what they are at. They are started again if they are needed again."""
        taken = [self._idle.get() for _ in self._workers]
        for worker in reversed(taken):
            worker.end()
            self._idle.put(worker)

    def examine(self, text: str, *, system_prompt: str | None = None) -> TemplateReport:
        """What `examine_template` says, or a report whose problem is that it took too long or too much."""
        problem = text_problem(text, what="chat template")
        if problem is None and system_prompt is not None:
            problem = text_problem(system_prompt, what="system prompt")
        if problem:
            return TemplateReport(problems=(problem,))
        request = orjson.dumps({"text": text, "system_prompt": system_prompt})
        digest = hashlib.sha256(request).digest()
        with self._lock:
            if digest in self._reports:
                self._reports.move_to_end(digest)
                return self._reports[digest]
            others = self._under_way.get(digest)
            if others is None:
                answer = self._under_way[digest] = Future()
        if others is not None:
            return others.result()
        try:
            report, lasting = self._ask(request)
        except BaseException as error:
            with self._lock:
                del self._under_way[digest]
            answer.set_exception(error)
            raise
        with self._lock:
            del self._under_way[digest]
            if lasting:
                self._reports[digest] = report
                while len(self._reports) > _CACHED:
                    self._reports.popitem(last=False)
        answer.set_result(report)
        return report

    async def examine_async(self, text: str, *, system_prompt: str | None = None) -> TemplateReport:
        """The same, in a thread."""
        return await asyncio.to_thread(self.examine, text, system_prompt=system_prompt)

    def _ask(self, request: bytes) -> tuple[TemplateReport, bool]:
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, or none while it is not needed. For one thread at a time."""

    def __init__(self, timeout_sec: float) -> None:
        self.timeout_sec = timeout_sec
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes) -> tuple[TemplateReport, bool]:
        """The report, and whether it would be the same the next time."""
        before: float | None = None
        try:
            process = self._running()
            before = self._cpu_sec()
            answer = self._exchange(process, request)
        except (OSError, _NoStartError) as error:
            self.end()
            raise SandboxUnavailableError(f"the process that examines chat templates did not start: {error}") from error
        except _LateError as error:
            after = self._cpu_sec()
            self.end()
            worked_sec = self.timeout_sec if before is None or after is None else after - before
            if worked_sec < self.timeout_sec / 4:
                raise SandboxUnavailableError(
                    "the machine is too busy to examine the chat template: the process that does got"
                    f" {worked_sec:.1f} s of CPU time in {self.timeout_sec:g} s"
                ) from error
            return _failed(
                f"found a template that is not rendered within {self.timeout_sec:g} s, expected milliseconds:"
                " look for loops that do not end"
            ), True
        except _EndedError:
            self.end()
            return _failed(
                "found a template that takes more memory or time than the"
                f" {_MEMORY_BYTES // 1024**2} MiB and {self.timeout_sec:g} s that it gets: simplify it"
            ), True
        except BaseException:  # interrupted: the answer that still comes must not be taken for that of the next request
            self.end()
            raise
        return TemplateReport.from_dict(orjson.loads(answer)), True

    def _cpu_sec(self) -> float | None:
        """CPU time that the process has had so far (proc_pid_stat(5)); None where the kernel does not say."""
        try:
            stat = Path(f"/proc/{self.process.pid if self.process else 0}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        utime, stime = stat.rpartition(")")[2].split()[11:13]
        return (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process and self.process.poll() is None:
            return self.process
        self.end()
        # -I: nothing from the folder we happen to be in; the limit of CPU time comes with the request's own.
        argv = [sys.executable, "-I", "-c", _BOOT, repr([path for path in sys.path if path]), str(self.timeout_sec)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/")
        try:
            hello = _read(self.process, deadline=time.monotonic() + _START_TIMEOUT_SEC)
        except (_LateError, _EndedError) as error:
            raise _NoStartError("it ended, or said nothing") from error
        if hello != _READY:
            raise _NoStartError("it said something unexpected")
        return self.process

    def _exchange(self, worker: subprocess.Popen[bytes], request: bytes) -> bytes:
        assert worker.stdin is not None  # noqa: S101 (it was started with a pipe)
        try:
            worker.stdin.write(_HEADER.pack(len(request)) + request)
            worker.stdin.flush()
        except BrokenPipeError as error:
            raise _EndedError from error
        return _read(worker, deadline=time.monotonic() + self.timeout_sec)

    def end(self) -> None:
        """Kills the process, if there is one."""
        if process := self.process:
            self.process = None
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not yet written is of no use to a killed process
                    if pipe:
                        pipe.close()
            process.wait()


_BOOT = (
    "import sys, ast; sys.path[:] = ast.literal_eval(sys.argv[1]);"
    "from llamamodel_operator.shell.sandbox import serve; serve(float(sys.argv[2]))"
)


class _LateError(Exception):
    pass


class _EndedError(Exception):
    pass


class _NoStartError(Exception):
    pass


def _failed(message: str) -> TemplateReport:
    return TemplateReport(problems=(Problem(message=message),))


def _read(worker: subprocess.Popen[bytes], *, deadline: float) -> bytes:
    assert worker.stdout is not None  # noqa: S101 (it was started with a pipe)
    descriptor = worker.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        received = b""
        wanted = _HEADER.size
        while len(received) < wanted:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise _LateError
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise _EndedError
            received += chunk
            if wanted == _HEADER.size and len(received) >= wanted:
                wanted += min(_HEADER.unpack(received[: _HEADER.size])[0], _MAX_FRAME_BYTES)
    return received[_HEADER.size :]


def serve(timeout_sec: float) -> None:
    """The worker: answers one request after the other until its input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    examine_template("{{ messages[0].content }}")  # imports what is imported late
    _write(answers, _READY)
    while header := requests.read(_HEADER.size):
        request = orjson.loads(requests.read(_HEADER.unpack(header)[0]))
        # Counted from what was used so far. The parent kills after as much time on the wall; this is for when the
        # parent is gone.
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit_sec = int(used.ru_utime + used.ru_stime + timeout_sec) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (limit_sec, resource.RLIM_INFINITY))
        try:
            report = examine_template(request["text"], system_prompt=request["system_prompt"])
        except Exception as error:  # none is known; a bug of ours must not look like the end of the worker
            report = _failed(f"the template could not be examined: {type(error).__name__}")
        _write(answers, orjson.dumps(asdict(report)))


def _write(stream: BinaryIO, frame: bytes) -> None:
    stream.write(_HEADER.pack(len(frame)) + frame)
    stream.flush()
