"""What was gathered before planning: texts in ConfigMaps, what a chat template does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.text.template import TemplateReport

__all__ = ["Facts", "Missing"]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A text that is referred to and is not there.

    Attributes:
        message: what exactly is missing.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a plan rests on besides the LlamaModel and the operator's configuration.

    Attributes:
        texts: what the keys of ConfigMaps hold; without an entry where nobody could look.
        template: what examining the chat template gave; None where there is none or nobody could look.
    """

    texts: Mapping[ConfigMapKey, str | Missing] = field(default_factory=dict)
    template: TemplateReport | None = None
