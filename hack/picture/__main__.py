"""The picture in README.md: `record` runs its commands on the cluster of `make demo`, `render` draws what they printed.

python hack/picture record [--name dev]      # writes docs/assets/terminal.json
python hack/picture render                   # writes docs/assets/terminal.svg from it
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from recording import COLUMNS, Command, draw, read, write

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "docs/assets/terminal.json"
PICTURE = ROOT / "docs/assets/terminal.svg"

COMMANDS = (
    "kubectl llamamodel render --command -f examples/gemma.yaml",
    "kubectl apply -f examples/gemma.yaml",
    "kubectl wait --for=condition=Ready --timeout=180s llamamodel/gemma",
    "kubectl get llamamodels",
    "kubectl llamamodel status gemma",
    """\
curl -sN localhost:8080/v1/completions -d '{"model": "gemma", "stream": true, "max_tokens": 60, "stop": "\\n",
    "prompt": "The lighthouse keeper climbed the stairs every evening because"}' |
  sed -un 's/.*"text":"\\([^"]*\\)".*/\\1/p' | tr -d '\\n'""",
)


def main() -> int:
    """Exit status: 0 done, 1 a command failed, or what it printed names this machine."""
    parser = argparse.ArgumentParser(
        prog="hack/picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="run the commands on a cluster, and draw what they print")
    record.add_argument("--name", default="dev", help="the cluster instance, as `make demo` left it")
    verbs.add_parser("render", help="draw what was recorded")
    arguments = parser.parse_args()
    if arguments.verb == "record":
        try:
            write(RECORDED, commands=_record(arguments.name))
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"hack/picture: {error}", file=sys.stderr)
            return 1
    PICTURE.write_text(draw(read(RECORDED)))
    return 0


def _record(name: str) -> list[Command]:
    status = json.loads(_run(f"{sys.executable} hack/cluster status --name {name} -o json", environment={}))
    environment = {
        "KUBECONFIG": status["kubeconfig"],
        "PATH": f"{status['binDir']}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": str(COLUMNS),
    }
    _run("kubectl delete --ignore-not-found --wait -f examples/gemma.yaml", environment=environment)
    commands = []
    for line in COMMANDS:
        # a port of this machine's own choice: 8080 may be somebody else's
        shown = _forwarded(line, environment) if "localhost:8080" in line else _run(line, environment=environment)
        for secret in (str(ROOT), str(Path.home()), socket.gethostname()):
            if secret in shown:
                raise ValueError(f"`{line}` printed {secret}, which is of this machine alone")
        commands.append(Command(line=line, output=shown))
    return commands


def _forwarded(line: str, environment: dict[str, str]) -> str:
    forward = subprocess.Popen(
        ["kubectl", "port-forward", "service/gemma", ":8080", "--address", "127.0.0.1"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = (forward.stdout.readline() if forward.stdout else "").partition(" -> ")[0].rpartition(":")[2]
        return _run(line.replace("localhost:8080", f"127.0.0.1:{port}"), environment=environment)
    finally:
        forward.terminate()
        forward.wait()


def _run(line: str, *, environment: dict[str, str]) -> str:
    """What a shell prints for that line. Raises CalledProcessError where it fails, after its errors were shown."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
