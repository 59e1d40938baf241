"""The command line as a process: quick to start, quiet when it is cut off, and against a cluster that answers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.cli.main import run

SOURCES = str(Path(__file__).parents[2] / "operator")
PROGRAM = [sys.executable, "-m", "llamamodel_operator.cli.main"]
HEAVY = (
    "aiohttp",
    "asyncio",
    "jinja2",
    "jsonschema",
    "kopf",
    "kubernetes",
    "llamamodel_operator.api",
    "pydantic",
    "yaml",
)


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "NO_COLOR")}
    return kept | {"PYTHONPATH": SOURCES} | more


def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=environment(**more), capture_output=True, text=True, timeout=120, check=False
    )


def test_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys; from llamamodel_operator.cli.main import run; run(['llamamodel', '--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_validating_imports_nothing_of_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    code = (
        "import sys; from llamamodel_operator.cli.main import run\n"
        f"run(['llamamodel', 'validate', {str(tmp_path / 'empty.yaml')!r}])\n"
        "print([name for name in ('aiohttp', 'kopf', 'kubernetes') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "flags", "-o", "json"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=60), said) == (0, b"")


def test_an_interrupt_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "validate", "-f", "-"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"a: 1\n")
    process.stdin.flush()
    while _unread(process.stdin.fileno()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)

    assert (process.returncode, out, said.strip()) == (130, b"", b"")


def _unread(pipe: int) -> int:
    """Bytes in a pipe that its reader has not taken yet."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def test_a_terminal_that_knows_little_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("kind: 'Ü\u2028x'\napiVersion: v1\n---\n- ä\n", encoding="utf-8")

    done = call("validate", str(tmp_path), PYTHONIOENCODING="ascii")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_asks_the_program(shell: str) -> None:
    done = call("completion", shell)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"_LLAMAMODEL_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("llamamodel up", "plain,upgrade-check"),
        ("llamamodel validate --str", "plain,--strict"),
        ("llamamodel upgrade-check --to-build b1043", "plain,b10434"),
        ("llamamodel flags di", "plain,diff"),
    ],
)
def test_commands_options_and_builds_are_completed(words: str, offered: str) -> None:
    done = call(_LLAMAMODEL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))

    assert offered in done.stdout.splitlines()


# --- a cluster


MODEL: dict[str, Any] = {
    "metadata": {"name": "qwen3", "namespace": "team-a", "uid": "1", "generation": 2},
    "spec": {
        "model": {"pvc": {"claimName": "models", "path": "q.gguf"}},
        "image": "example.com/llama.cpp:server-b10434",
        "extraArgs": ["--mlock"],
        "grammar": {"configMapKeyRef": {"name": "texts", "key": "g"}},
    },
    "status": {"phase": "Ready"},
}


@contextmanager
def a_cluster(answers: dict[str, tuple[int, Any]], tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """An API server that has these answers by path, and a kubeconfig for it; tells what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path.partition('?')[0]}")
            status, answer = answers.get(self.path.partition("?")[0], (404, {"kind": "Status", "message": "not found"}))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    try:
        yield str(kubeconfig), asked
    finally:
        server.shutdown()
        server.server_close()


ALL = "/apis/llamamodel.dev/v1alpha1/llamamodels"
TEAM_A = "/apis/llamamodel.dev/v1alpha1/namespaces/team-a/llamamodels"


def test_the_models_of_a_cluster_are_checked_by_reading_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {"metadata": {}, "items": [MODEL]}
    texts = {"metadata": {"name": "texts"}, "data": {"g": 'root ::= "a"'}}
    answers = {ALL: (200, listed), TEAM_A: (200, listed), "/api/v1/namespaces/team-a/configmaps/texts": (200, texts)}
    with a_cluster(answers, tmp_path) as (kubeconfig, asked):
        for where in (["--all-namespaces"], ["-n", "team-a", "--context", "here"]):
            code = run(["llamamodel", "upgrade-check", "--to-build", "b11669", "--kubeconfig", kubeconfig, *where])
            told = capsys.readouterr()

            assert code == 1, told.err
            assert "team-a/qwen3  would break" in told.out
            assert "RemovedFlag" in told.out
            assert "TextNotSeen" not in told.out

    assert asked == [f"GET {path}" for path in (ALL, *list(answers)[2:], TEAM_A, *list(answers)[2:])]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "the cluster has no LlamaModels: the CustomResourceDefinition is not installed"),
        (403, "LlamaModels may not be read: no rights; --namespace asks for one namespace alone"),
        (500, "the cluster answered 500: no rights"),
    ],
)
def test_a_cluster_that_refuses_is_one_line(
    status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_cluster({ALL: (status, {"kind": "Status", "message": "no rights"})}, tmp_path) as (kubeconfig, _):
        code = run(["llamamodel", "upgrade-check", "--to-build", "b11669", "-A", "--kubeconfig", kubeconfig])

    assert (code, capsys.readouterr().err) == (2, f"error: {said}\n")


def test_no_cluster_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_cluster({}, tmp_path) as (kubeconfig, _):
        pass
    for file in (kubeconfig, str(tmp_path / "none")):
        assert run(["llamamodel", "upgrade-check", "--to-build", "b11669", "-A", "--kubeconfig", file]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
