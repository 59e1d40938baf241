"""From the words of a llama-server command line to what decides how much memory it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.engine.catalogues import CatalogueMatch
from llamamodel_operator.core.engine.effective import EffectiveSettings
from llamamodel_operator.core.engine.values import FALSE_WORDS, TRUE_WORDS, expected_value
from llamamodel_operator.core.engine.words import Given, read_words
from llamamodel_operator.core.memory.settings import ALL_LAYERS, AUTO_SLOTS, MemorySettings

__all__ = ["Files", "MemoryArguments", "settings_of"]

_MIB = 1 << 20
_MOST_LAYERS = 1024
"""More than any model has; a larger number of layers means all."""
_DRAFT_TYPES = frozenset({"draft-simple", "draft-eagle3", "draft-dflash", "draft-dspark"})
"""Ways to speculate that run the model of --spec-draft-model."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that a command line names, as written.

    Attributes:
        model: -m.
        draft: -md.
        projector: --mmproj.
        adapters: --lora and --lora-scaled, without their scales.
    """

    model: str | None = None
    draft: str | None = None
    projector: str | None = None
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MemoryArguments:
    """What a command line says.

    Attributes:
        settings: of the model.
        draft: of the draft model; None where there is none.
        files: that it names.
        layers_auto: whether the number of layers on the GPUs is left to llama-server; `settings` has all of them.
        draft_layers_auto: likewise for the draft model.
        context_auto: whether the context is left to llama-server; `settings` has the model's own.
        devices: how many GPUs --device names; None where it is not given.
        uncounted: sentences about what takes memory and is not in the settings.
    """

    settings: MemorySettings
    draft: MemorySettings | None
    files: Files
    layers_auto: bool
    draft_layers_auto: bool
    context_auto: bool
    devices: int | None
    uncounted: tuple[str, ...]


def settings_of(
    words: Sequence[str], *, catalogue: Catalogue, env: Sequence[Mapping[str, Any]] = ()
) -> MemoryArguments:
    """Reads a command line as the llama-server of the catalogue's build does.

    What the build does not know and values that it would refuse are passed over: `check_arguments` tells about them.

    Source: common/arg.cpp; tools/server/server.cpp, llama_server (slots, batch of embeddings, size of a shared pool);
    common/speculative.cpp, common_base_params_to_speculative (what a draft model takes over).

    Args:
        words: without the program itself.
        catalogue: of the build.
        env: variables, as Kubernetes has them; a word wins over its variable.
    """
    line = _Line(words, catalogue=catalogue, env=env)
    files = _files(line)
    slots, unified = _slots(line)
    layers, layers_auto = line.layers("--n-gpu-layers")
    draft_layers, draft_layers_auto = line.layers("--gpu-layers-draft")
    devices = line.devices()
    embedding = bool(line.is_on("--embeddings") or line.is_on("--reranking"))
    micro_batch = line.number("--ubatch-size", low=1, default=512)
    batch = line.number("--batch-size", low=1, default=2048)
    settings = MemorySettings(
        context_size=_context(line, slots),
        slots=slots,
        unified=unified,
        cache_type_k=line.text("--cache-type-k", default="f16"),
        cache_type_v=line.text("--cache-type-v", default="f16"),
        flash_attention=line.flash_attention(),
        batch_size=min(batch, micro_batch) if embedding else batch,
        micro_batch_size=micro_batch,
        gpu_layers=0 if devices == 0 else layers,
        split_mode=line.split_mode(),
        tensor_split=line.shares(),
        main_gpu=line.number("--main-gpu", default=0),
        cpu_moe_layers=line.cpu_moe("--cpu-moe", "--n-cpu-moe"),
        override_tensors=(*line.overrides("--override-tensor"), *line.dense_on_cpu()),
        kv_offload=line.is_on("--kv-offload", "--no-kv-offload") is not False,
        op_offload=line.is_on("--op-offload", "--no-op-offload") is not False,
        repack=line.is_on("--repack", "--no-repack") is not False,
        swa_full=bool(line.is_on("--swa-full")),
        embedding=embedding,
        pooling="rank" if line.is_on("--reranking") else line.text("--pooling", default="") or None,
        prompt_cache_bytes=max(0, line.number("--cache-ram", low=-1, default=line.default("--cache-ram"))) * _MIB,
        draft_tokens=line.number("--spec-draft-n-max", "--draft-max", default=line.default("--spec-draft-n-max"))
        if files.draft
        else 0,
        projector_offload=line.is_on("--mmproj-offload", "--no-mmproj-offload") is not False,
    )
    draft = replace(
        settings,
        cache_type_k=line.text("--cache-type-k-draft", default="f16"),
        cache_type_v=line.text("--cache-type-v-draft", default="f16"),
        gpu_layers=0 if devices == 0 else draft_layers,
        cpu_moe_layers=line.cpu_moe("--cpu-moe-draft", "--n-cpu-moe-draft"),
        override_tensors=line.overrides("--override-tensor-draft"),
        embedding=False,
        pooling=None,
        prompt_cache_bytes=0,
        draft_tokens=0,
    )
    return MemoryArguments(
        settings=settings,
        draft=draft if files.draft else None,
        files=files,
        layers_auto=layers_auto and devices != 0,
        draft_layers_auto=draft_layers_auto and devices != 0,
        context_auto=not line.has("--ctx-size") and settings.context_size == 0,
        devices=devices,
        uncounted=tuple(_uncounted(line)),
    )


class _Line:
    """A command line, asked by any spelling. What is missing or unreadable has the build's default."""

    def __init__(self, words: Sequence[str], *, catalogue: Catalogue, env: Sequence[Mapping[str, Any]]) -> None:
        match = CatalogueMatch(catalogue=catalogue, build=catalogue.build, exact=True, neighbours=(catalogue,))
        self._catalogue = catalogue
        self._settings = EffectiveSettings(words, match=match, fields={}, env=env)
        self._given = [item for item in read_words(words, catalogue.find) if isinstance(item, Given)]

    def has(self, *spellings: str) -> bool:
        """Whether it is given."""
        return self._settings.get(*spellings) is not None

    def is_on(self, *spellings: str) -> bool | None:
        """Whether a switch is on; None where it is not given."""
        return self._settings.is_on(*spellings)

    def knows(self, spelling: str) -> bool:
        """Whether the build has it."""
        return self._catalogue.find(spelling) is not None

    def default(self, spelling: str) -> int:
        """The build's default, where it is a number."""
        flag = self._catalogue.find(spelling)
        text = (flag.default if flag else None) or ""
        return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else 0

    def text(self, *spellings: str, default: str) -> str:
        """The value, where it is one that the build takes."""
        setting = self._settings.get(*spellings)
        if setting is None or not setting.values or expected_value(setting.values[0], setting.flag) is not None:
            return default
        return setting.values[0]

    def number(self, *spellings: str, default: int, low: int = 0) -> int:
        """The value, where it is a number that the build takes."""
        text = self.text(*spellings, default="")
        return max(low, int(text)) if re.fullmatch("[+-]?[0-9]{1,18}", text) else default

    def all(self, spelling: str) -> list[str]:
        """Each value of what may be given several times."""
        flag = self._catalogue.find(spelling)
        if flag is None:
            return []
        said = [item.values[0] for item in self._given if item.flag is flag and item.values]
        return said or [text for text in (self.text(spelling, default=""),) if text]

    def layers(self, spelling: str) -> tuple[int, bool]:
        """How many layers, and whether that is the server's own choice.

        llama.cpp: common/arg.cpp, --n-gpu-layers: auto is -1, all is -2, and every negative number is all to
        src/llama-model.cpp, llama_model::n_gpu_layers.
        """
        text = self.text(spelling, default="auto")
        if text == "auto" or (text.startswith("-") and int(text) == -1):
            return ALL_LAYERS, True
        if text == "all" or int(text) < 0:
            return ALL_LAYERS, False
        return min(int(text), ALL_LAYERS), False

    def flash_attention(self) -> Literal["auto", "on", "off"]:
        """Older builds have a flag without value, and it off unless given."""
        flag = self._catalogue.find("--flash-attn")
        if flag is not None and flag.arity == 0:
            return "on" if self.is_on("--flash-attn") else "off"
        text = self.text("--flash-attn", default="auto")
        return "on" if text in TRUE_WORDS else "off" if text in FALSE_WORDS else "auto"

    def presets(self) -> list[str]:
        """Flags that set several others: --gpt-oss-20b-default and the like."""
        return [item.flag.name for item in self._given if re.search("-(default|spec)$", item.flag.name)]

    def split_mode(self) -> Literal["none", "layer", "row", "tensor"]:
        match self.text("--split-mode", default="layer"):
            case "none":
                return "none"
            case "row":
                return "row"
            case "tensor":
                return "tensor"
        return "layer"

    def shares(self) -> tuple[float, ...]:
        text = self.text("--tensor-split", default="")
        return tuple(float(share) for share in re.split("[,/]+", text)) if text else ()

    def devices(self) -> int | None:
        """How many are named."""
        text = self.text("--device", default="")
        if not text:
            return None
        return 0 if text == "none" else len(text.split(","))

    def cpu_moe(self, every: str, number: str) -> int:
        """For how many layers the experts stay on the host."""
        if self.is_on(every):
            return ALL_LAYERS
        return self.number(number, default=0)

    def overrides(self, spelling: str) -> tuple[tuple[str, str], ...]:
        """Patterns and buffer types. llama.cpp: common/arg.cpp, parse_tensor_buffer_overrides."""
        pairs = (item.partition("=") for text in self.all(spelling) for item in text.split(","))
        return tuple((pattern, buffer) for pattern, _, buffer in pairs if buffer)

    def dense_on_cpu(self) -> Iterator[tuple[str, str]]:
        """--n-cpu-ffn. llama.cpp: common/common.h, llm_add_n_cpu_ffn_overrides and LLM_FFN_DENSE_REGEX."""
        if layers := self.number("--n-cpu-ffn", default=0):
            numbers = "|".join(map(str, range(layers))) if layers < _MOST_LAYERS else "[0-9]+"
            yield rf"blk\.({numbers})\.ffn_(up|down|gate)\.", "CPU"


def _slots(line: _Line) -> tuple[int | None, bool | None]:
    """How many slots, and whether they share one cache; None where llama-server decides.

    Builds without --kv-unified have one cache for all slots.
    """
    unified = line.is_on("--kv-unified", "-kvu") if line.knows("--kv-unified") else True
    slots = line.number("--parallel", low=-1, default=line.default("--parallel"))
    return (slots, unified) if slots > 0 else (None, unified)


def _context(line: _Line, slots: int | None) -> int:
    """Cells of all slots; 0 for the model's own. llama.cpp: tools/server/server.cpp, llama_server."""
    if not line.has("--ctx-size"):
        if per_slot := line.number("--kv-unified-per-slot", default=0):
            return (slots or AUTO_SLOTS) * per_slot
        return line.default("--ctx-size")
    return line.number("--ctx-size", default=line.default("--ctx-size"))


def _files(line: _Line) -> Files:
    scaled = (path.rpartition(":") for text in line.all("--lora-scaled") for path in text.split(","))
    return Files(
        model=line.text("--model", default="") or None,
        draft=line.text("--model-draft", default="") or None,
        projector=line.text("--mmproj", default="") or None,
        adapters=(
            *(path for text in line.all("--lora") for path in text.split(",") if path),
            *(path or scale for path, _, scale in scaled if path or scale),
        ),
    )


def _uncounted(line: _Line) -> Iterator[str]:
    if line.has("--rpc"):
        yield "--rpc: what other machines take is counted on the GPUs of this one"
    if line.number("--cache-ram", low=-1, default=0) < 0:
        yield "--cache-ram -1: the prompt cache has no limit, so the host's memory is not counted with it"
    kinds = {kind for text in line.all("--spec-type") for kind in text.split(",")}
    if "draft-mtp" in kinds:
        yield "--spec-type draft-mtp: the model's own prediction layers are not counted"
    if kinds & _DRAFT_TYPES and not line.has("--model-draft"):
        yield "--spec-type: the draft model is not named by --spec-draft-model, so it is not counted"
    if line.has("--control-vector", "--control-vector-scaled"):
        yield "--control-vector: control vectors are not counted"
    if line.presets():
        yield f"{', '.join(line.presets())}: what a preset sets is not known; write its settings out"
