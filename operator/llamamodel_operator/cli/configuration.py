"""The operator's configuration for a dry run: the defaults, or those of a file with the chart's own values."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from llamamodel_operator.api.findings import sentence
from llamamodel_operator.cli.documents import Problem, read_documents
from llamamodel_operator.cli.manifests import read_file
from llamamodel_operator.core.plan import Configuration
from llamamodel_operator.core.schema_check import check_defaults, kind_of
from llamamodel_operator.shell.settings import Settings

__all__ = ["BadConfigurationError", "read_configuration"]

_NAMES = ("engineImages", "modelDefaults", "argumentPolicy", "allowedFlags", "gpuOverhead")
_IMAGES = ("cpu", "gpu", "byResource")


class BadConfigurationError(Exception):
    """The file cannot be used; the message is one line for each fault."""


class _Given(Settings):
    """The operator's settings, without this process's environment: a dry run says the same everywhere."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def read_configuration(file: str | None) -> Configuration:
    """The configuration in a file, or the operator's defaults where None is given.

    The file may be the values that the chart was installed with: keys that have nothing to do with plans are passed
    over.

    Raises:
        BadConfigurationError: it cannot be read, or says something that the operator would refuse.
    """
    values = _values(file) if file else {}
    given: dict[str, Any] = {}
    for name, setting in (
        ("modelDefaults", "model_defaults"),
        ("argumentPolicy", "argument_policy"),
        ("allowedFlags", "allowed_flags"),
        ("gpuOverhead", "gpu_overhead"),
    ):
        if values.get(name) is not None:
            given[setting] = values[name]
    faults = [sentence(found) for found in check_defaults(given.get("model_defaults", {}), path="modelDefaults")]
    images = values.get("engineImages")
    if isinstance(images, Mapping):
        given |= {f"image_{name}": images[name] for name in ("cpu", "gpu") if images.get(name) is not None}
        faults += [
            f"engineImages.{key}: there is no such key{_meant(key, _IMAGES)}" for key in _strays(images, _IMAGES)
        ]
        if isinstance(images.get("byResource"), Mapping):
            merged = {**Settings.model_fields["image_by_resource"].default, **images["byResource"]}
            given["image_by_resource"] = {name: image for name, image in merged.items() if image is not None}
        elif images.get("byResource") is not None:
            faults.append(f"engineImages.byResource: must be an object; found {kind_of(images['byResource'])}")
    elif images is not None:
        faults.append(f"engineImages: must be an object; found {kind_of(images)}")
    faults += [f"{key}: there is no such key{meant}" for key in values if (meant := _misspelt(key))]
    if faults:
        raise _bad(file, faults)
    try:
        return _Given(**given).configuration
    except ValidationError as error:
        raise _bad(file, [_fault(fault) for fault in error.errors(include_url=False)]) from None


def _values(file: str) -> Mapping[str, Any]:
    data = read_file(file)
    if isinstance(data, Problem):
        raise BadConfigurationError(str(data))
    documents, problems = read_documents(data, file=file)
    if problems:
        raise BadConfigurationError("\n".join(map(str, problems)))
    if len(documents) > 1:
        raise _bad(file, [f"expected one document, found {len(documents)}"])
    return documents[0].value if documents else {}


def _strays(given: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    return [key for key in given if key not in known]


def _meant(key: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(key[:64], known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _misspelt(key: str) -> str:
    """Other values of the chart are none of our business, unless they are ours misspelt."""
    close = [] if key in _NAMES else get_close_matches(key[:64], _NAMES, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _fault(fault: Any) -> str:
    names = {"image_cpu": "engineImages.cpu", "image_gpu": "engineImages.gpu"}
    names |= {"image_by_resource": "engineImages.byResource", "model_defaults": "modelDefaults"}
    names |= {"argument_policy": "argumentPolicy", "allowed_flags": "allowedFlags", "gpu_overhead": "gpuOverhead"}
    first, *rest = fault["loc"]
    where = names.get(str(first), str(first)) + "".join(f".{part}" for part in rest)
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + ("" if fault["type"] == "value_error" else f"; found {kind_of(fault['input'])}")


def _bad(file: str | None, faults: list[str]) -> BadConfigurationError:
    return BadConfigurationError("\n".join(f"{file}: {' '.join(fault.split())}" for fault in faults))
