"""Values of flags: what a value must look like, stricter than llama-server where it would misread one silently."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from llamamodel_operator.core.engine.catalogue import Flag, FlagState, ValueType

__all__ = ["FALSE_WORDS", "TRUE_WORDS", "expected_value", "is_switch_word"]

TRUE_WORDS = ("on", "enabled", "true", "1")
"""What llama-server reads as yes (common/arg.cpp, is_truthy)."""

FALSE_WORDS = ("off", "disabled", "false", "0")
"""What llama-server reads as no (common/arg.cpp, is_falsey)."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][+-]?[0-9]{1,4})?")
_INT32 = (-(1 << 31), (1 << 31) - 1)
_LARGEST_FLOAT = 3.4e38
_SMALLEST_FLOAT = 1.18e-38

_RANGES: Mapping[str, tuple[int, int]] = {
    "--seed": (-1, (1 << 32) - 1),
    "--n-cpu-moe": (0, _INT32[1]),
    "--prio": (-1, 3),
    "--prio-batch": (0, 3),
}
"""Bounds that the handlers in common/arg.cpp check, or where they read more than 32 bits."""


def expected_value(value: str, flag: Flag, *, position: int = 0) -> str | None:
    """What was expected, where a value does not fit a flag; None where it fits. `position` counts its values from 0.

    Stricter than llama-server: it reads numbers with std::stoi and std::stof, which stop at the first character
    that they do not know, so that `8k` is 8 and `1.5` is 1 where a whole number is asked for. Neither is meant.
    """
    if flag.state is FlagState.WITHOUT_EFFECT:
        return None  # ignored, whatever it is
    if position and flag.value_type is ValueType.PATH:  # FILE SCALE
        return None if _is_float(value) else "a finite number"
    if expected := _expected_by_kind(value, flag):
        return expected
    if flag.arity == 1 and flag.name in _SCALED and not _are_scaled_files(value):
        return "FILE:SCALE, with commas between several"
    for spelling in (flag.name, *flag.aliases):
        if (form := _FORMS.get(spelling)) and not form[0](value):
            return form[1]
    return None


def is_switch_word(value: str) -> bool:
    """Whether a value of an environment variable turns a flag without value on or off."""
    return value in TRUE_WORDS or value in FALSE_WORDS


def _expected_by_kind(value: str, flag: Flag) -> str | None:
    listed = ", ".join(flag.allowed or flag.words)
    if flag.allowed:
        if flag.value_type is ValueType.LIST:
            fits = all(item in flag.allowed for item in value.split(","))
            return None if fits else f"one or more of {listed}, separated by commas"
        return None if value in flag.allowed else f"one of {listed}"
    if value in flag.words:
        return None
    or_words = f", or one of {listed}" if listed else ""
    if flag.value_type is ValueType.INTEGER and not _is_integer(value, flag):
        return f"a whole number{_range(flag)}{or_words}"
    if flag.value_type is ValueType.FLOAT and not _is_float(value):
        return f"a finite number{or_words}"
    return None


def _bounds(flag: Flag) -> tuple[int, int]:
    return next((_RANGES[s] for s in (flag.name, *flag.aliases) if s in _RANGES), _INT32)


def _range(flag: Flag) -> str:
    low, high = _bounds(flag)
    if high == _INT32[1]:
        return "" if low == _INT32[0] else f" from {low} on"
    return f" from {low} to {high}"


def _is_integer(value: str, flag: Flag) -> bool:
    low, high = _bounds(flag)
    return _INTEGER.fullmatch(value) is not None and low <= int(value) <= high


def _is_float(value: str) -> bool:
    if _FLOAT.fullmatch(value) is None:
        return False
    size = abs(float(value))
    # std::stof refuses what does not fit into 32 bits, in both directions
    return size == 0 or _SMALLEST_FLOAT <= size <= _LARGEST_FLOAT


def _is_json_object(value: str) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _all_floats(separators: str) -> Callable[[str], bool]:
    return lambda value: all(_is_float(item) for item in re.split(separators, value))


def _is_range(value: str) -> bool:
    return re.fullmatch(r"[0-9]{0,4}-[0-9]{0,4}", value) is not None and value != "-"


def _is_mask(value: str) -> bool:
    return re.fullmatch(r"(0x)?[0-9a-fA-F]+", value) is not None


def _is_bias(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}[+-]([0-9.]{1,20}|inf)", value) is not None


def _are_overrides(value: str) -> bool:
    # only the first one: whether a comma begins another depends on the build
    return re.match(r"[^=]{1,127}=(int|float|bool|str):", value) is not None


def _are_tensor_overrides(value: str) -> bool:
    return all("=" in item for item in value.split(","))


def _are_scaled_files(value: str) -> bool:
    return all(path and _is_float(scale) for path, _, scale in (item.rpartition(":") for item in value.split(",")))


_SCALED = ("--lora-scaled", "--control-vector-scaled")
_MASK = (_is_mask, "a mask in hexadecimal, such as 0xff")
_CORES = (_is_range, "a range of CPUs, such as 0-7")
_FORMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "--tensor-split": (_all_floats("[,/]+"), "numbers separated by commas, such as 3,1"),
    "--cpu-mask": _MASK,
    "--cpu-mask-batch": _MASK,
    "--cpu-mask-draft": _MASK,
    "--cpu-mask-batch-draft": _MASK,
    "--cpu-range": _CORES,
    "--cpu-range-batch": _CORES,
    "--cpu-range-draft": _CORES,
    "--logit-bias": (_is_bias, "a token, a sign and a number, such as 15043+1"),
    "--override-kv": (_are_overrides, "KEY=TYPE:VALUE with the type int, float, bool or str"),
    "--override-tensor": (_are_tensor_overrides, "PATTERN=BUFFER, such as exps=CPU"),
    "--override-tensor-draft": (_are_tensor_overrides, "PATTERN=BUFFER, such as exps=CPU"),
    "--json-schema": (_is_json, "a JSON schema"),
    "--chat-template-kwargs": (_is_json_object, "a JSON object"),
    "--control-vector-layer-range": (lambda value: _INTEGER.fullmatch(value) is not None, "a whole number"),
}
"""Forms that a type does not say, by a spelling that all builds share (handlers in common/arg.cpp)."""
