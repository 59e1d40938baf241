"""Reads the argument table in llama.cpp's source (common/arg.cpp, common_params_parser_init)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devcatalogue import cpp
from devcatalogue.defaults import Defaults
from devcatalogue.entry import Entry, Handler
from devcatalogue.errors import CatalogueError

__all__ = ["chat_templates_in_source", "find_source", "parse_source"]

_SERVER = "LLAMA_EXAMPLE_SERVER"
_COMMON = "LLAMA_EXAMPLE_COMMON"
_TABLE = re.compile(r"^(?:common|gpt)_params_context (?:common|gpt)_params_parser_init\(", re.MULTILINE)
_CALL = re.compile(r"add_opt\(\s*(?:common_arg|llama_arg)\s*(?=\()")
_CHAIN = re.compile(r"\s*\.\s*(\w+)\s*(?=\()")
_TEMPLATE = re.compile(r'\{\s*"([\w.-]+)"\s*,\s*LLM_CHAT_TEMPLATE_')
_APPENDS = re.compile(r"\b(?:push_back|emplace_back|insert|parse_tensor_buffer_overrides|string_parse_kv_override)\(")


@dataclass(frozen=True, kw_only=True)
class _Call:
    arguments: list[str]
    chain: dict[str, str]


def find_source(folder: Path) -> Path:
    """The root of llama.cpp's source in an unpacked distribution."""
    found = sorted(folder.rglob("common/arg.cpp"), key=lambda path: len(path.parts))
    if not found:
        raise CatalogueError(
            f"{folder}: no common/arg.cpp below it; expected a source tree of llama.cpp from September 2024 or later"
        )
    return found[0].parents[1]


def parse_source(root: Path) -> list[Entry]:
    """The server's arguments, in the order in which its help prints them."""
    text = cpp.without_comments((root / "common" / "arg.cpp").read_text(encoding="utf-8"))
    defaults = Defaults.read(root)
    groups: dict[str, list[Entry]] = {"common": [], "sampling": [], "speculative": [], "specific": []}
    taken: dict[str, Entry] = {}
    start = _TABLE.search(text)
    if not start:
        raise CatalogueError(f"{root}/common/arg.cpp: no common_params_parser_init; the table is somewhere else")
    for call in _calls(text[start.start() :]):
        examples = _examples(call.chain.get("set_examples"), text=text) or {_COMMON}
        if not examples & {_SERVER, _COMMON} or _SERVER in _examples(call.chain.get("set_excludes"), text=text):
            continue
        entry = _entry(call, defaults=defaults)
        if not entry.spellings or any(spelling in taken for spelling in entry.spellings):
            continue  # the other branch of `if (ex == LLAMA_EXAMPLE_SERVER)`, whose own comes first
        taken |= dict.fromkeys(entry.spellings, entry)
        if "set_sparam" in call.chain or "set_sampling" in call.chain:
            groups["sampling"].append(entry)
        elif "set_spec" in call.chain:
            groups["speculative"].append(entry)
        else:
            groups["specific" if _SERVER in examples else "common"].append(entry)
    return [entry for group in groups.values() for entry in group]


def chat_templates_in_source(root: Path) -> frozenset[str]:
    """Names of the built-in chat templates."""
    for name in ("llama-chat.cpp", "llama.cpp"):
        path = root / "src" / name
        if path.is_file() and (found := _TEMPLATE.findall(path.read_text(encoding="utf-8"))):
            return frozenset(found)
    raise CatalogueError(f"{root}/src: no table of chat templates in llama-chat.cpp or llama.cpp")


def _calls(text: str) -> Iterator[_Call]:
    for found in _CALL.finditer(text):
        end = cpp.closing(text, found.end())
        arguments = cpp.split(text[found.end() + 1 : end])
        chain: dict[str, str] = {}
        position = end + 1
        while link := _CHAIN.match(text, position):
            stop = cpp.closing(text, link.end())
            chain[link[1]] = text[link.end() + 1 : stop]
            position = stop + 1
        yield _Call(arguments=arguments, chain=chain)


def _examples(argument: str | None, *, text: str) -> set[str]:
    if argument is None:
        return set()
    if argument.strip().startswith("{"):
        return set(re.findall(r"LLAMA_EXAMPLE_\w+", argument))
    named = re.search(rf"\b{re.escape(argument.strip())}\s*=\s*\{{([^}}]*)\}}", text)
    return set(re.findall(r"LLAMA_EXAMPLE_\w+", named[1])) if named else set()


def _entry(call: _Call, *, defaults: Defaults) -> Entry:
    *head, handler = call.arguments
    lists = [argument for argument in head if argument.lstrip().startswith("{")]
    strings = [argument for argument in head if not argument.lstrip().startswith("{")]
    *hints, help_text = strings
    env = call.chain.get("set_env")
    return Entry(
        spellings=tuple(cpp.literals(lists[0])),
        negations=tuple(cpp.literals(lists[1])) if len(lists) > 1 else (),
        hints=tuple(cpp.join_literals(hint) or defaults.format(hint) for hint in hints),
        text=" ".join(defaults.format(help_text).split()),
        env=cpp.join_literals(env) if env else None,
        handler=_handler(handler),
        appends=bool(_APPENDS.search(handler)),
        ignored="GGML_UNUSED(params)" in handler and "GGML_UNUSED(value)" in handler,
    )


def _handler(code: str) -> Handler:
    signature = code.partition("{")[0]
    if re.search(r"\bint\b", signature) or re.search(r"std::sto(?:i|l|ul|ll|ull)\(value", code):
        return Handler.INTEGER
    if re.search(r"std::sto(?:f|d)\(value", code):
        return Handler.FLOAT
    return Handler.OTHER
