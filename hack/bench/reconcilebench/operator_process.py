"""The real operator as a process of its own, as a pod would run it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from .errors import BenchError

__all__ = ["OperatorProcess", "running_operator"]

_START_TIMEOUT_SEC = 60.0
_STOP_TIMEOUT_SEC = 25.0
_PORT = re.compile(rb"serving /metrics, /healthz and /readyz on port (\d+)")
_WRITES = re.compile(
    r'^llamamodel_operator_api_writes_total\{kind="(\w+)",status="(\d+)",verb="([\w-]+)"\} (\S+)$', re.M
)
_PASSES = re.compile(r'^llamamodel_operator_reconciles_total\{result="\w+"\} (\S+)$', re.M)
_LEADS = re.compile(r"^llamamodel_operator_leader 1(\.0)?$", re.M)


class OperatorProcess:
    """A leading operator."""

    def __init__(self, *, pid: int, port: int, session: aiohttp.ClientSession) -> None:
        self.pid = pid
        self._url = f"http://127.0.0.1:{port}"
        self._session = session

    async def leads(self) -> bool:
        """Whether it holds the lease and has read the cluster."""
        async with self._session.get(f"{self._url}/readyz") as response:
            ready = response.status == 200
        return ready and _LEADS.search(await self._metrics()) is not None

    async def writes(self) -> dict[tuple[str, str], int]:
        """Its own count of writes by (kind, verb), failed ones included, the Lease left out."""
        counts: dict[tuple[str, str], int] = {}
        for kind, _status, verb, number in _WRITES.findall(await self._metrics()):
            if kind != "Lease":
                counts[kind, verb] = counts.get((kind, verb), 0) + int(float(number))
        return counts

    async def passes(self) -> int:
        """Passes over a LlamaModel so far."""
        return sum(int(float(number)) for number in _PASSES.findall(await self._metrics()))

    async def _metrics(self) -> str:
        async with self._session.get(f"{self._url}/metrics") as response:
            return await response.text()


@asynccontextmanager
async def running_operator(*, kubeconfig: Path, log: Path, resync_sec: float) -> AsyncIterator[OperatorProcess]:
    """Starts it with its default settings (leader election, 16 workers), waits until it leads, ends it when left.

    Raises:
        BenchError: it ends, or does not lead in time; the message holds the end of its log.
    """
    program = Path(sys.executable).parent / "llamamodel-operator"
    if not program.exists():
        raise BenchError(f"there is no {program}: run 'uv sync', then 'uv run python hack/bench/reconcile.py'")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLAMAMODEL_OPERATOR_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(program),
            f"--kubeconfig={kubeconfig}",
            "--http-host=127.0.0.1",
            "--http-port=0",
            f"--resync-interval-sec={resync_sec:.0f}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            start_new_session=True,
        )
    try:
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.timeout(_START_TIMEOUT_SEC):
                    operator = await _until_leading(process, log=log, session=session)
            except TimeoutError:
                raise BenchError(f"the operator does not lead within {_START_TIMEOUT_SEC:.0f} s: {_end(log)}") from None
            yield operator
    finally:
        await _stop(process)


async def _until_leading(
    process: asyncio.subprocess.Process, *, log: Path, session: aiohttp.ClientSession
) -> OperatorProcess:
    while True:
        await asyncio.sleep(0.1)
        if process.returncode is not None:
            raise BenchError(f"the operator ended with exit status {process.returncode}: {_end(log)}")
        if port := _port(log):
            operator = OperatorProcess(pid=process.pid, port=port, session=session)
            if await operator.leads():
                return operator


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_SEC):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _port(log: Path) -> int | None:
    """What the operator says it serves on; None where it has not said so yet."""
    found = _PORT.search(log.read_bytes())
    return int(found[1]) if found else None


def _end(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return " / ".join(lines[-5:]) or "it wrote nothing"
