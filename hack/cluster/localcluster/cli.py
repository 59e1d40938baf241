"""The command line: reads arguments, picks the engine, prints results."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from .binaries import API_BINARIES, FULL_BINARIES, resolve
from .builder import binary_cache, ensure_binaries
from .cleanup import has_leftovers
from .console import Console
from .engine import ClusterEngine, docker_answers
from .engine_kind import KindEngine, binaries_for_kind
from .engine_processes import ProcessEngine
from .errors import BrokenError, ClusterError, NotRunningError
from .instance import DEFAULT_NAME, NAME_VARIABLE, Instance, clusters_home
from .locks import locked
from .processes import tail
from .state import load_state
from .status import Status

__all__ = ["main"]

_DESCRIPTION = """\
A Kubernetes cluster for development and tests, with two fake GPUs on its node.

Where Docker runs it is kind's; elsewhere, as root on Linux, its parts are plain processes in a
network namespace. The first 'up' builds them from their Go modules (about 15 minutes on two
cores); later ones take seconds.
"""
_EPILOG = f"""\
environment:
  {NAME_VARIABLE}   the default for --name
  XDG_CACHE_HOME       where built binaries are kept (~/.cache)
  XDG_STATE_HOME       where clusters are kept (~/.local/state)
  NO_COLOR             no colours

exit status:
  0 done   1 failed   2 wrong usage   3 no such cluster   4 cluster broken
  5 this machine lacks something   130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _Command(options, console=console).run()
    except KeyboardInterrupt:
        console.error("interrupted; run it again to go on, or 'down' to clean")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ClusterError as error:
        console.error(str(error))
        return error.exit_status
    except OSError as error:
        console.error(str(error))
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Command:
    """One run: its options, its cluster, and a method for each verb."""

    def __init__(self, options: argparse.Namespace, *, console: Console) -> None:
        self._options = options
        self._console = console

    def run(self) -> int:
        verb: str = self._options.verb
        method = getattr(self, "_" + verb.replace("-", "_"))
        status: int = method()
        return status

    @property
    def _instance(self) -> Instance:
        return Instance.named(self._options.name)

    def _engine(self) -> ClusterEngine:
        """The engine that the cluster has, or else the one that is asked for or fits."""
        state = load_state(self._instance.state_file)
        wanted = getattr(self._options, "engine", "auto")
        if state:
            if wanted not in ("auto", state.engine):
                raise ClusterError(
                    f"cluster {self._instance.name!r} was started with --engine {state.engine}; take it 'down' first"
                )
            wanted = state.engine
        elif wanted == "auto":
            full = getattr(self._options, "mode", "full") == "full"
            wanted = "kind" if self._options.verb == "up" and full and docker_answers() else ""
        engine = KindEngine if wanted == "kind" else ProcessEngine
        return engine(instance=self._instance, console=self._console)

    def _up(self) -> int:
        instance, options, begun = self._instance, self._options, time.monotonic()
        engine = self._engine()
        if self._is_up(engine):
            return 0
        self._console.info(f"cluster {instance.name!r} ({engine.kind}, {options.mode})")
        bin_dir = engine.prepare(options.mode)
        with locked(instance.lock_file, console=self._console, doing="changing this cluster"):
            if self._is_up(engine):
                return 0
            if has_leftovers(instance):
                with self._console.step("clean what an earlier run left"):
                    engine.clean(keep_models=True)
            engine.start(mode=options.mode, gpus=options.gpus, bin_dir=bin_dir)
        self._console.info(
            f"up in {time.monotonic() - begun:.1f}s; use it with:\n"
            f"  export KUBECONFIG={instance.kubeconfig}\n"
            f"  export PATH={bin_dir}:$PATH"
        )
        self._print_status(engine.status())
        return 0

    def _is_up(self, engine: ClusterEngine) -> bool:
        """Whether the cluster runs already; then only its GPUs are set again."""
        status = engine.status()
        if status.state != "running":
            return False
        if status.mode != self._options.mode:
            raise ClusterError(
                f"cluster {status.name!r} is up in {status.mode} mode; take it 'down' first, or choose another --name"
            )
        engine.set_gpus(self._options.gpus)
        self._console.info(f"cluster {status.name!r} is already up")
        self._print_status(engine.status())
        return True

    def _print_status(self, status: Status) -> None:
        if getattr(self._options, "output", "") == "json":
            print(json.dumps(status.document(), indent=2))

    def _down(self) -> int:
        instance = self._instance
        with locked(instance.lock_file, console=self._console, doing="changing this cluster"):
            if not has_leftovers(instance) and not instance.state_dir.exists():
                self._console.info(f"there is no cluster {instance.name!r}")
            else:
                with self._console.step(f"take cluster {instance.name!r} down"):
                    self._engine().clean()
            instance.lock_file.unlink(missing_ok=True)
        return 0

    def _status(self) -> int:
        status = self._engine().status()
        if self._options.output == "json":
            self._print_status(status)
        else:
            _print_table(status)
        failures = {"stopped": NotRunningError, "broken": BrokenError}
        return failures[status.state].exit_status if status.state in failures else 0

    def _kubeconfig(self) -> int:
        print(self._running().kubeconfig)
        return 0

    def _running(self) -> Status:
        status = self._engine().status()
        if status.state == "stopped":
            raise NotRunningError(f"there is no cluster {status.name!r}; start it with 'up'")
        return status

    def _build(self) -> int:
        if self._options.only:
            names = resolve(self._options.only)
        elif self._options.mode == "api-only":
            names = API_BINARIES
        else:
            names = binaries_for_kind() if docker_answers() else FULL_BINARIES
        print(ensure_binaries(binary_cache(), names, console=self._console))
        return 0

    def _bin_dir(self) -> int:
        state = load_state(self._instance.state_file)
        print(state.bin_dir if state else binary_cache().bin_dir)
        return 0

    def _load_image(self) -> int:
        self._engine().load_images(self._options.archive)
        return 0

    def _exec(self) -> int:
        words: list[str] = self._options.command
        command = words[1:] if words[:1] == ["--"] else words
        if not command:
            raise ClusterError("exec: no command; write it after --")
        self._running()
        argv, environ = self._engine().exec_command(command)
        environ[NAME_VARIABLE] = self._instance.name
        try:
            os.execvpe(argv[0], argv, environ)  # noqa: S606  (the command is the user's own)
        except FileNotFoundError as error:
            raise ClusterError(f"exec: no program {argv[0]!r} on PATH") from error

    def _logs(self) -> int:
        log = self._engine().log(self._options.component)
        if self._options.path:
            print(log)
        elif self._options.follow:
            return subprocess.call(["tail", "-n", str(self._options.tail), "-F", str(log)])
        else:
            print(tail(log, lines=self._options.tail))
            self._console.info(f"({log})")
        return 0

    def _list(self) -> int:
        home = clusters_home()
        found = sorted(path.parent.name for path in home.glob("*/state.json"))
        if self._options.output == "json":
            print(json.dumps(found))
        else:
            print("\n".join(found) if found else f"no clusters in {home}")
        return 0


def _print_table(status: Status) -> None:
    engine = f" ({status.engine}, {status.mode})" if status.engine else ""
    print(f"cluster     {status.name}{engine}")
    print(f"state       {status.state}{': ' + status.problem if status.problem else ''}")
    if status.state == "stopped":
        return
    print(f"kubeconfig  {status.kubeconfig}")
    print(f"models      {status.models_host_dir}")
    for node in status.nodes:
        print(f"node        {node.name} {'ready' if node.ready else 'not ready'}, {node.gpus} GPUs")
    for name, component in status.components.items():
        state = f"pid {component.pid}" if component.alive else "ended"
        print(f"{'':12}{name:25}{state:13}{component.log}")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hack/cluster", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    default = os.environ.get(NAME_VARIABLE) or DEFAULT_NAME

    def verb(name: str, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if named:
            made.add_argument("--name", default=default, help=f"which cluster (now: {default})")
        return made

    def with_output(made: argparse.ArgumentParser) -> None:
        made.add_argument("-o", "--output", choices=["text", "json"], default="text")

    def with_mode(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--mode",
            choices=["full", "api-only"],
            default="full",
            help="api-only: etcd and an API server, no root needed, no pods, no controllers",
        )

    up = verb("up", "start the cluster; does nothing if it is up already")
    with_mode(up)
    up.add_argument("--gpus", type=_count, default=2, help="fake GPUs on the node (default: 2)")
    up.add_argument(
        "--engine",
        choices=["auto", "processes", "kind"],
        default="auto",
        help="auto: kind where Docker answers, else processes",
    )
    with_output(up)
    verb("down", "end the cluster and remove all of it, its models directory too")
    with_output(verb("status", "show whether the cluster runs, and where its files are"))
    verb("kubeconfig", "print the path of the kubeconfig")
    build = verb("build", "build binaries into the cache", named=False)
    with_mode(build)
    build.add_argument("--only", help="comma-separated, such as apiserver,etcd", metavar="NAMES")
    verb("bin-dir", "print the directory that has kubectl, helm and the rest")
    load = verb("load-image", "give image archives (OCI or Docker) to the node")
    load.add_argument("archive", nargs="+", type=Path)
    run = verb("exec", "run a command in the cluster's network, with KUBECONFIG and PATH set")
    run.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ARGUMENT…")
    logs = verb("logs", "show the end of a component's log")
    logs.add_argument("component")
    logs.add_argument("--path", action="store_true", help="print only where the log is")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("--tail", type=_count, default=50, metavar="LINES")
    with_output(verb("list", "list the clusters", named=False))
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"expected 0 to 10000, found {text}")
    return number
