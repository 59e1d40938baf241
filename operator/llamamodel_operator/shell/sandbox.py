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
from dataclasses import asdict
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from llamamodel_operator.core.text.problem import Problem, text_problem
from llamamodel_operator.core.text.template import TemplateReport, examine_template

__all__ = ["TemplateSandbox"]

TIMEOUT_SEC = 2.0
"""For one template. One of usual size takes 10 to 50 ms the first time; afterwards the answer is in the cache."""

_START_TIMEOUT_SEC = 30.0
"""For the worker to come up; the first time it compiles what it imports."""

_MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of the worker. It starts with about 100 MiB."""

_CACHED = 256
_HEADER = struct.Struct("!I")
_MAX_FRAME_BYTES = 16 * 1024 * 1024
_READY = b"ready"


class TemplateSandbox:
    """One worker process, started when it is needed first, started anew after it had to be killed.

    Safe to use from several threads; they wait for each other. Close it, or use it in a `with` block. The worker
    ends when its parent does, however that ends: it reads the end of its input, or meets its own limit of CPU time.
    """

    def __init__(self, *, timeout_sec: float = TIMEOUT_SEC) -> None:
        self._timeout_sec = timeout_sec
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._reports: OrderedDict[bytes, TemplateReport] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker. It is started again if it is needed again."""
        with self._lock:
            self._end()

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
            report, lasting = self._ask(request)
            if lasting:
                self._reports[digest] = report
                while len(self._reports) > _CACHED:
                    self._reports.popitem(last=False)
            return report

    async def examine_async(self, text: str, *, system_prompt: str | None = None) -> TemplateReport:
        """The same, in a thread."""
        return await asyncio.to_thread(self.examine, text, system_prompt=system_prompt)

    def _ask(self, request: bytes) -> tuple[TemplateReport, bool]:
        """The report, and whether it would be the same the next time."""
        try:
            answer = self._exchange(self._running(), request)
        except (OSError, _NoStartError) as error:
            self._end()
            return _failed(f"the process that examines chat templates did not start: {error}"), False
        except _LateError:
            self._end()
            return _failed(
                f"found a template that is not rendered within {self._timeout_sec:g} s, expected milliseconds:"
                " look for loops that do not end"
            ), True
        except _EndedError:
            self._end()
            return _failed(
                "found a template that takes more memory or time than the"
                f" {_MEMORY_BYTES // 1024**2} MiB and {self._timeout_sec:g} s that it gets: simplify it"
            ), True
        except BaseException:  # interrupted: the answer that still comes must not be taken for that of the next request
            self._end()
            raise
        return TemplateReport.from_dict(orjson.loads(answer)), True

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker and self._worker.poll() is None:
            return self._worker
        self._end()
        # -I: nothing from the folder we happen to be in; the limit of CPU time comes with the request's own.
        argv = [sys.executable, "-I", "-c", _BOOT, repr([path for path in sys.path if path]), str(self._timeout_sec)]
        self._worker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/")
        try:
            hello = _read(self._worker, deadline=time.monotonic() + _START_TIMEOUT_SEC)
        except (_LateError, _EndedError) as error:
            raise _NoStartError("it ended, or said nothing") from error
        if hello != _READY:
            raise _NoStartError("it said something unexpected")
        return self._worker

    def _exchange(self, worker: subprocess.Popen[bytes], request: bytes) -> bytes:
        assert worker.stdin is not None  # noqa: S101 (it was started with a pipe)
        try:
            worker.stdin.write(_HEADER.pack(len(request)) + request)
            worker.stdin.flush()
        except BrokenPipeError as error:
            raise _EndedError from error
        return _read(worker, deadline=time.monotonic() + self._timeout_sec)

    def _end(self) -> None:
        if worker := self._worker:
            self._worker = None
            worker.kill()
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what was not yet written is of no use to a killed process
                    if pipe:
                        pipe.close()
            worker.wait()


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
