"""What was gathered before planning: texts in ConfigMaps, what a chat template does, what the files hold, nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.gateway.taken import NameVerdict
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.core.objects.check import Check
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
        inspection: of the model's files; None where nobody asked for one, as on the command line.
        nodes: those of the cluster; None where they may not be read.
        operator_image: what runs inspections and checks; empty where that is off.
        claim_modes: access modes by the name of the claim; without an entry where that is not known.
        running: whether a Deployment of the model exists.
        fails: none of its pods answers, and one has ended before it did.
        running_revision: of its pod template, where it asks for pods at all; else empty.
        running_drain: image of the sidecar that its pods have; empty where they have none.
        running_check: the check that its pods begin with; None where they begin without one.
        name: whether it has its served name at the gateway; None where nobody asked, as without a gateway.
    """

    texts: Mapping[ConfigMapKey, str | Missing] = field(default_factory=dict)
    template: TemplateReport | None = None
    inspection: Inspection | None = None
    nodes: tuple[NodeGpus, ...] | None = None
    operator_image: str = ""
    claim_modes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    running: bool = False
    fails: bool = False
    running_revision: str = ""
    running_drain: str = ""
    running_check: Check | None = None
    name: NameVerdict | None = None
