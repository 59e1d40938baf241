"""The memory settings of a LlamaModel: those of the very command line that the plan renders for it."""

from __future__ import annotations

from collections.abc import Sequence

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.memory.arguments import MemoryArguments, settings_of

__all__ = ["memory_arguments"]


def memory_arguments(model: LlamaModel, *, words: Sequence[str], catalogue: Catalogue) -> MemoryArguments:
    """Reads the command line, so that fields, extraArgs, variables and the operator's defaults all count.

    Args:
        model: for its environment.
        words: the container's arguments, as `build_arguments` makes them for the kubelet.
        catalogue: of the build that they are for.
    """
    plain = [word.replace("$$", "$") for word in words]
    return settings_of(plain, catalogue=catalogue, env=model.spec.env or ())
