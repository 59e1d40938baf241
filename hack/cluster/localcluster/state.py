"""What a cluster consists of, on disk: written before and after each thing that is started."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from .errors import BrokenError

__all__ = ["Engine", "Mode", "Process", "State", "load_state", "save_state"]

Mode = Literal["full", "api-only"]
Engine = Literal["processes", "kind"]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks from boot to the start of the process."""
    boot_id: str
    """/proc/sys/kernel/random/boot_id of the boot that ``start_ticks`` counts from."""
    log: str


@dataclass(kw_only=True)
class State:
    """The record of one cluster; ``phase`` is ``running`` only once everything answered."""

    engine: Engine
    mode: Mode
    gpus: int
    bin_dir: str
    """Where the binaries lie that it was started with."""
    phase: Literal["starting", "running", "stopping"] = "starting"
    server: str = ""
    """URL of the API server as the kubeconfig names it; empty until it is known."""
    components: dict[str, Process] = field(default_factory=dict)


def load_state(path: Path) -> State | None:
    """Read the record; None where there is none. Raises BrokenError for a damaged one."""
    try:
        document = json.loads(path.read_text())
        components = {name: Process(**value) for name, value in document["components"].items()}
        return State(**{**document, "components": components})
    except (FileNotFoundError, PermissionError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenError(f"{path} is damaged ({error}); end the processes it names, then remove it") from error


def save_state(path: Path, state: State) -> None:
    """Replace the record as a whole, so that no reader and no crash sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(state), indent=2) + "\n")
    temporary.replace(path)
