"""Templates in a process of their own: no template hangs, fills the memory or raises, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamamodel_operator.core.text.template import SystemMessage
from llamamodel_operator.shell.sandbox import SandboxUnavailableError, TemplateSandbox

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLES = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[TemplateSandbox]:
    with TemplateSandbox() as sandbox:
        yield sandbox


def worker_of(sandbox: TemplateSandbox) -> int:
    (worker,) = workers_of(sandbox)
    return worker


def workers_of(sandbox: TemplateSandbox) -> list[int]:
    return [worker.process.pid for worker in sandbox._workers if worker.process]


def test_a_template_is_examined(sandbox: TemplateSandbox) -> None:
    report = sandbox.examine(CHATML, system_prompt="You are X.")
    assert (report.problems, report.system, report.prompt_rendered) == ((), SystemMessage.KEPT, True)


@pytest.mark.real_time
async def test_a_template_is_examined_beside_other_work(sandbox: TemplateSandbox) -> None:
    assert (await sandbox.examine_async(CHATML + "!")).system is SystemMessage.KEPT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENDLESS, "not rendered within"),
        (DOUBLES, "takes too much to render: MemoryError"),
        ("{{ '%1000000000d' % 1 }}", "MemoryError"),
        ("{{ range(100000) | list | map('string') | join('x' * 100000) }}", "MemoryError"),
        ("{{ '(' * 10 }}" + "{{ (" * 50_000, "nested too deep"),
    ],
    ids=["endless", "doubles", "format", "join", "nested"],
)
def test_a_template_that_takes_too_much_is_a_problem_and_the_next_is_examined(text: str, said: str) -> None:
    with TemplateSandbox(timeout_sec=1.0) as sandbox:
        (problem,) = sandbox.examine(text).problems
        assert said in str(problem)
        assert sandbox.examine(CHATML).problems == ()


def test_what_was_examined_is_not_examined_again() -> None:
    with TemplateSandbox(timeout_sec=1.0) as sandbox:
        first = sandbox.examine(ENDLESS)
        assert workers_of(sandbox) == []
        assert sandbox.examine(ENDLESS) is first
        assert workers_of(sandbox) == []


def test_a_worker_that_was_killed_is_started_again() -> None:
    with TemplateSandbox() as sandbox:
        sandbox.examine(CHATML)
        before = worker_of(sandbox)
        os.kill(before, signal.SIGKILL)
        os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
        assert sandbox.examine(CHATML + "!").system is SystemMessage.KEPT
        assert worker_of(sandbox) != before


def test_threads_get_the_answers_to_their_own_questions(sandbox: TemplateSandbox) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = str(sandbox.examine("{{ raise_exception('" + str(number) + "') }}").problems[0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[number].endswith(f": {number}") for number in range(20))


def test_a_slow_template_does_not_hold_up_another() -> None:
    with TemplateSandbox(timeout_sec=600) as sandbox:

        def examine() -> None:
            with suppress(SandboxUnavailableError):  # it may be killed before it is ready
                sandbox.examine(ENDLESS)

        slow = threading.Thread(target=examine)
        slow.start()
        while not workers_of(sandbox):
            time.sleep(0.01)
        assert sandbox.examine(CHATML).problems == ()
        assert slow.is_alive()
        os.kill(workers_of(sandbox)[0], signal.SIGKILL)
        slow.join()


def test_a_worker_that_gets_no_cpu_time_is_no_fault_of_the_template() -> None:
    with TemplateSandbox(timeout_sec=1.0) as sandbox:
        assert sandbox.examine(ENDLESS).problems, "the worker is up"
        assert sandbox.examine(CHATML).problems == ()
        (worker,) = workers_of(sandbox)
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(SandboxUnavailableError, match="too busy"):
            sandbox.examine(CHATML + "{# another #}")
        assert sandbox.examine(CHATML + "{# another #}").problems == (), "asked again, a new worker answers"


def test_one_template_in_many_threads_keeps_one_worker_busy() -> None:
    reports: list[object] = []
    with TemplateSandbox(timeout_sec=1.0) as sandbox:
        threads = [threading.Thread(target=lambda: reports.append(sandbox.examine(ENDLESS))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(reports) == 8
    assert all(report is reports[0] for report in reports)


def test_half_a_surrogate_pair_is_a_problem(sandbox: TemplateSandbox) -> None:
    assert "surrogate" in str(sandbox.examine("\ud800").problems[0])
    assert "surrogate" in str(sandbox.examine(CHATML, system_prompt="\ud800").problems[0])


@pytest.mark.parametrize("text", [CHATML, ENDLESS], ids=["idle", "busy"])
def test_the_worker_ends_when_its_parent_is_killed(text: str) -> None:
    script = (
        f"import sys, threading; sys.path[:] = {sys.path!r}\n"
        "from llamamodel_operator.shell.sandbox import SandboxUnavailableError, TemplateSandbox\n"
        "sandbox = TemplateSandbox(timeout_sec=1.0)\n"
        f"sandbox.examine({CHATML!r} + '!')\n"
        "print(sandbox._workers[0].process.pid, flush=True)\n"
        f"sandbox._workers[0].timeout_sec = 1000\nsandbox.examine({text!r})\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        parent.kill()
    deadline = time.monotonic() + 60
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(worker)


def running(pid: int) -> bool:
    """Neither gone nor a zombie that only its new parent can take away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_worker_inherits_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    with TemplateSandbox() as sandbox:
        sandbox.examine(CHATML)
        assert b"s3cret" not in Path(f"/proc/{worker_of(sandbox)}/environ").read_bytes()


PIECES = [
    *"m()~+*|-1[]é \n",
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{# ",
    " #}",
    "messages",
    ".role",
    "['content']",
    "for ",
    " in ",
]
PIECES += [
    "if ",
    "else",
    "endif",
    "endfor",
    "set ns",
    "namespace(",
    "tojson",
    "macro f()",
    "endmacro",
    "f()",
    "loop",
    "'a'",
]


@settings(max_examples=200)
@given(text=st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=40))
def test_no_text_raises_anything(sandbox: TemplateSandbox, text: str) -> None:
    report = sandbox.examine(text, system_prompt=text)
    assert report.problems or report.placement
