"""Fills in what the source's help texts leave to printf: defaults out of common.h, lists of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcatalogue import cpp

__all__ = ["UNKNOWN", "Defaults"]

UNKNOWN = "?"
"""Stands where a value cannot be told from the source."""

_STRUCT = re.compile(r"^struct (\w+) (?:: \w+ )?\{(.*?)^\};", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^ {4}(?:enum |struct )?([\w:<>]+) +(\w+)(?:\[\d+\])? *(?:= *([^;]+))?;", re.MULTILINE)
_PLACEHOLDER = re.compile(r"%(?:\.(\d)([fg])|[dsu]|zu|lld|llu|ld|%)")
_SERVER_OWN = re.compile(r"ex == LLAMA_EXAMPLE_SERVER\) \{((?:\s*params\.[\w.]+ *= *[^;]+;)+)")
_TERNARY = re.compile(r'(!?)(params[\w.]+)\s*(?:(==|>|<)\s*(-?\d+))?\s*\?\s*"([^"]*)"\s*:\s*"([^"]*)"')
_CONSTANTS = {
    "GGML_SCHED_PRIO_NORMAL": "0",
    "LLAMA_DEFAULT_SEED": "-1",
    "0xFFFFFFFF": "-1",
    "true": "true",
    "false": "false",
}
_ENUMS = ("GGML_TYPE_", "LLAMA_FLASH_ATTN_TYPE_", "COMMON_REASONING_FORMAT_")


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What the source says about values that its help texts print."""

    members: Mapping[str, Mapping[str, tuple[str, str]]]
    """By struct and member: type and initializer."""
    server: Mapping[str, str]
    """What the server alone starts with, by path."""
    calls: Mapping[str, str]
    """What functions print that list names."""

    @classmethod
    def read(cls, root: Path) -> Defaults:
        """From common.h, arg.cpp and speculative.cpp."""
        header = cpp.without_comments((root / "common" / "common.h").read_text(encoding="utf-8"))
        table = cpp.without_comments((root / "common" / "arg.cpp").read_text(encoding="utf-8"))
        members = {
            struct[1]: {name: (kind, value.strip()) for kind, name, value in _MEMBER.findall(struct[2])}
            for struct in _STRUCT.finditer(header)
        }
        own = {
            path: value.strip()
            for block in _SERVER_OWN.findall(table)
            for path, value in re.findall(r"(params\.[\w.]+) *= *([^;]+);", block)
        }
        types = re.search(r"kv_cache_types = \{([^}]*)\}", table)
        speculative = root / "common" / "speculative.cpp"
        speculation = re.findall(
            r'\{\s*"([\w-]+)",\s*COMMON_SPECULATIVE_TYPE_',
            speculative.read_text(encoding="utf-8") if speculative.is_file() else "",
        )
        names = re.findall(r"GGML_TYPE_(\w+)", types[1]) if types else ()
        calls = {
            "get_all_kv_cache_types()": ", ".join(name.lower() for name in names),
            "common_speculative_all_types_str()": ",".join(speculation),
        }
        return cls(members=members, server=own, calls=calls)

    def format(self, code: str) -> str:
        """The text that a help expression gives, with UNKNOWN for what cannot be told."""
        code = re.sub(r"\bPRI[a-z]\d+\b", '"d"', code)
        if found := re.match(r"\s*string_format\s*(?=\()", code):
            end = cpp.closing(code, found.end())
            template, *values = cpp.split(code[found.end() + 1 : end])
            pending = iter(values)
            text = _choose(template)
            return _PLACEHOLDER.sub(lambda found: self._fill(found, next(pending, "")), text)
        if re.search(r"[A-Za-z_]\w*\s*\(", re.sub(r'"(?:[^"\\]|\\.)*"', "", code)):
            return self._value(code)
        return _choose(code)

    def _fill(self, placeholder: re.Match[str], code: str) -> str:
        value = self._value(code)
        if placeholder[0][-1] in "du" and value in {"true", "false"}:
            return str(int(value == "true"))
        if placeholder[1] and placeholder[2] == "f" and re.fullmatch(r"-?\d+(\.\d*)?", value):
            return f"{float(value):.{placeholder[1]}f}"
        return value

    def _value(self, code: str) -> str:
        code = re.sub(r"^\((?:double|unsigned|int)\)\s*", "", code.strip()).removesuffix(".c_str()")
        if code in self.calls:
            return self.calls[code]
        if literal := cpp.join_literals(code):
            return literal
        if choice := _TERNARY.fullmatch(code):
            return self._choice(choice)
        if call := re.fullmatch(r"\w+\((params[\w.]+)\)", code):
            code = call[1]
        if code.startswith("params."):
            return self._member(code)
        return _CONSTANTS.get(code, UNKNOWN)

    def _choice(self, choice: re.Match[str]) -> str:
        value = self._member(choice[2])
        if choice[3]:
            if not re.fullmatch(r"-?\d+", value):
                return UNKNOWN
            left, right = int(value), int(choice[4])
            holds = {"==": left == right, ">": left > right, "<": left < right}[choice[3]]
        elif value in {"true", "false"}:
            holds = value == "true"
        else:
            return UNKNOWN
        return choice[5] if holds != bool(choice[1]) else choice[6]

    def _member(self, path: str) -> str:
        if path in self.server:
            return self._literal(self.server[path])
        struct = next((name for name in ("common_params", "gpt_params") if name in self.members), "")
        *parents, name = path.removeprefix("params.").split(".")
        for parent in parents:
            struct = self.members.get(struct, {}).get(parent, ("", ""))[0]
        kind, value = self.members.get(struct, {}).get(name, ("", ""))
        if not value and kind == "std::string":
            return ""
        return self._literal(value)

    @staticmethod
    def _literal(value: str) -> str:
        value = value.strip()
        if (literal := cpp.join_literals(value)) is not None and value:
            return literal
        if re.fullmatch(r"-?\d+(\.\d*)?f?", value):
            return value.removesuffix("f")
        for prefix in _ENUMS:
            if value.startswith(prefix):
                return value.removeprefix(prefix).lower()
        return _CONSTANTS.get(value, UNKNOWN)


def _choose(code: str) -> str:
    """The literals in the code; of `ex == LLAMA_EXAMPLE_… ? a : b` the one for the server, which is b."""
    if found := re.search(r"\bex == LLAMA_EXAMPLE_(?!SERVER)\w+\s*\?", code):
        code = cpp.after(code[found.end() :], ":")
    return "".join(cpp.literals(code))
