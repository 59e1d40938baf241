"""The real operator as a process of its own, as a pod would run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from .waiting import eventually

__all__ = ["OperatorProcess", "Restarter", "run_briefly"]

_START_SEC = 60.0
_STOP_SEC = 25.0
_PORT = re.compile(r"serving /metrics, /healthz and /readyz on port (\d+)")


def _console_script() -> Path:
    """The installed `llamamodel-operator`, beside the Python that runs the tests."""
    return Path(sys.executable).parent / "llamamodel-operator"


class OperatorProcess:
    """One operator, in its own process group, with its log in a file.

    `settings` are flags by the names of the settings: `resync_interval_sec=5`, `leader_election=False`.
    """

    def __init__(
        self, *, kubeconfig: Path, log: Path, settings: Mapping[str, object], program: Sequence[str] = ()
    ) -> None:
        """`program` starts something else that takes the operator's flags."""
        self.log_file = log
        self._argv = [*(program or (str(_console_script()),)), f"--kubeconfig={kubeconfig}", *_flags(settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0
        self._http = httpx.Client(timeout=10, trust_env=False)
        self._port = 0

    def start(self) -> None:
        """Starts it, once more if it has ended; does not wait for anything."""
        self._begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._port = 0
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LLAMAMODEL_OPERATOR_")}
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
            )

    def start_and_lead(self) -> None:
        """Starts it and waits until it works."""
        self.start()
        eventually(lambda: self.leads or self.ended, what="the operator leads", within=_START_SEC)
        assert not self.ended, f"the operator ended: {self.log}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the operator was never started"
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process group."""
        os.killpg(self.pid, number)

    def wait(self, *, within: float = _STOP_SEC) -> int:
        """Waits for its end; the exit code."""
        assert self._process is not None
        return self._process.wait(within)

    def stop(self) -> int:
        """Asks it to stop as the kubelet does; the exit code."""
        if not self.ended:
            self.signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """Kills it, whatever state it is in: its lease is of no use to anybody else."""
        self._http.close()
        if self._process is not None and not self.ended:
            self.signal(signal.SIGKILL)
            self.wait()

    @property
    def log(self) -> str:
        """What it has written since it was last started."""
        with self.log_file.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """The same as objects; a line that is none (a stack trace of the interpreter) is an object with a message."""
        return [_parsed(line) for line in self.log.splitlines()]

    def messages(self, containing: str = "") -> list[str]:
        """The messages of its log."""
        return [line["message"] for line in self.log_lines if containing in line.get("message", "")]

    def http(self, path: str) -> tuple[int, str]:
        """Status and text of one of its own endpoints; 0 while nobody answers there."""
        if not self._port:
            found = _PORT.search(self.log)
            if not found:
                return 0, ""
            self._port = int(found[1])
        try:
            response = self._http.get(f"http://127.0.0.1:{self._port}{path}")
        except httpx.TransportError as error:
            return 0, str(error)
        return response.status_code, response.text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; `name` without the prefix."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        samples = re.findall(
            rf"^llamamodel_operator_{name}(?:{{(.*)}})? (\S+)$", self.http("/metrics")[1], re.MULTILINE
        )
        return sum(float(value) for found, value in samples if all(label in found.split(",") for label in wanted))

    @property
    def leads(self) -> bool:
        """Whether it holds the lease (or needs none) and has read the cluster."""
        return self.metric("leader") == 1 and self.http("/readyz")[0] == 200  # in this order: standing by is ready too

    @property
    def passes(self) -> int:
        """How many passes over a LlamaModel it has done, whatever their result."""
        return int(self.metric("reconciles_total"))

    def wait_for_resyncs(self, number: int, *, models: int, within: float = 60.0) -> None:
        """Waits until it has looked at each of that many models that often again, although nothing happened."""
        goal = self.passes + number * models
        eventually(lambda: self.passes, until=lambda done: done >= goal, what=f"{goal} passes", within=within)


class Restarter:
    """Starts an operator again whenever it ends, as the kubelet does, until left."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator = operator
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.exit_codes: list[int | None] = []

    def __enter__(self) -> Restarter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._enough.wait(0.2):
            if self._operator.ended:
                self.exit_codes.append(self._operator.exit_code)
                self._operator.start()


def run_briefly(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the operator with these arguments to its end."""
    return subprocess.run(
        [_console_script(), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _flags(settings: Mapping[str, object]) -> list[str]:
    given = {"http_host": "127.0.0.1", "http_port": 0, "log_format": "json", **settings}
    flags = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        match value:
            case bool():
                flags.append(f"--{'' if value else 'no-'}{flag}")
            case list():
                flags.extend([f"--{flag}={item}" for item in value])
            case _:
                flags.append(f"--{flag}={value}")
    return flags


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"message": line}
    return parsed if isinstance(parsed, dict) else {"message": line}
