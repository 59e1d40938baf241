"""From a LlamaModel to everything that should exist for it, and everything that is to be said about it beforehand."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.labels import APPLIED_HASH_ANNOTATION, REVISION_LABEL, SETTLE_ANNOTATION
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.spec import LlamaModelSpec, MemoryPolicy
from llamamodel_operator.api.status import SettledStatus
from llamamodel_operator.core.assessment import Assessment, assess
from llamamodel_operator.core.claims import claim_findings, reach_of
from llamamodel_operator.core.engine.arguments import ArgumentReport, check_arguments
from llamamodel_operator.core.engine.argv import Arguments, build_arguments
from llamamodel_operator.core.engine.builds import build_of_image
from llamamodel_operator.core.engine.catalogue import Catalogue
from llamamodel_operator.core.engine.catalogues import CatalogueMatch, Catalogues
from llamamodel_operator.core.engine.conflicts import ModelFacts, check_combinations
from llamamodel_operator.core.engine.managed import MANAGED_FLAGS
from llamamodel_operator.core.engine.masking import mask_command
from llamamodel_operator.core.engine.policy import ArgumentPolicy
from llamamodel_operator.core.engine.settings import LORA_SCALE_VARIABLE, PORT, Inputs, plain_number, prompt_cache_mib
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.fits import Fits
from llamamodel_operator.core.gateway.taken import GatewayNames, names_in_status
from llamamodel_operator.core.inspection import Inspection, InspectionState, files_of
from llamamodel_operator.core.memory.estimate import MemoryEstimate
from llamamodel_operator.core.memory.spec_settings import memory_arguments
from llamamodel_operator.core.objects.check import settled_check
from llamamodel_operator.core.objects.configmap import build_scales, build_texts
from llamamodel_operator.core.objects.deployment import (
    RESERVED_VARIABLES,
    TEXTS,
    Server,
    build_deployment,
    file_path,
    mount_path,
)
from llamamodel_operator.core.objects.disruption import build_disruption_budget
from llamamodel_operator.core.objects.drain import settled_drain
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.objects.service import build_service
from llamamodel_operator.core.pod_keys import KEYS_FILE
from llamamodel_operator.core.settling import recorded, spec_with
from llamamodel_operator.core.texts import plan_texts

__all__ = ["Configuration", "ImageDefaults", "Plan", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class ImageDefaults:
    """Images for LlamaModels that name none.

    Attributes:
        cpu: for models without a GPU.
        by_resource: for models with one, by the name of the extended resource.
        gpu: for models with a GPU of a resource that `by_resource` does not know.
    """

    cpu: str
    gpu: str
    by_resource: Mapping[str, str]

    def choose(self, model: LlamaModel) -> str:
        """The image that the model's pods run."""
        if model.spec.image:
            return model.spec.image
        if model.spec.gpu is None:
            return self.cpu
        return self.by_resource.get(model.spec.gpu.resource_name, self.gpu)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What the operator's configuration says about plans.

    Attributes:
        images: for LlamaModels that name none.
        policy: what arguments are let through.
        catalogues: of the flags of each known build.
        defaults: a part of a spec, for what a LlamaModel's own says nothing about.
        node_affinity: whether pods are kept to nodes whose GPUs have enough memory, where only some have.
        gpu_overhead: bytes on each GPU that llama.cpp does not see, by vendor, where not those of `overhead.py`.
    """

    images: ImageDefaults
    policy: ArgumentPolicy
    catalogues: Catalogues
    defaults: Mapping[str, Any] = field(default_factory=dict)
    node_affinity: bool = True
    gpu_overhead: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What should be. A dry run shows exactly this.

    Attributes:
        name: of every child.
        revision: digest of the pod template, which the pods carry as a label.
        image: of the container.
        build: of llama.cpp in it, as far as anybody said; None where nobody did.
        flags: the build whose catalogue the command line is written for.
        settled_for: digest of the spec and the image that this was settled for.
        command: program and arguments as the user would type them, secrets masked.
        endpoint: base URL inside the cluster.
        objects: the children, each with the digest of itself as an annotation.
        findings: errors first, then warnings, then the rest.
        will_not_start: why the server will refuse to start, where that is certain; None where it is not.
        spec: of the model, with what it leaves open filled in.
        settled: what was filled in; None where nothing was known of the files.
        inspection: of the files; None where nobody asked for one.
        estimate: of the memory that it takes; None where there is none.
        fits: whether there is room for it.
        largest_context: that would fit, all slots together; None where nobody knows what the GPUs have.
        hold: why no pod is started, by the policy Block; empty where nothing holds it.
        gateway_names: which it has at the gateway.
    """

    name: str
    revision: str
    image: str
    build: int | None
    flags: int
    settled_for: str
    command: tuple[str, ...]
    endpoint: str
    objects: tuple[Mapping[str, Any], ...]
    findings: tuple[Finding, ...] = ()
    will_not_start: str | None = None
    spec: LlamaModelSpec
    settled: SettledStatus | None = None
    inspection: Inspection | None = None
    estimate: MemoryEstimate | None = None
    fits: Fits
    largest_context: int | None = None
    hold: str = ""
    gateway_names: GatewayNames

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings for which nothing of this plan is applied."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


def make_plan(model: LlamaModel, *, configuration: Configuration, facts: Facts) -> Plan:
    """Everything that should exist for this model. Pure: the same input always gives the same plan."""
    image = configuration.images.choose(model)
    build, findings = _build(model, image)
    match = configuration.catalogues.match(build)
    settled_for = _settled_for(model, image)
    settled = _settled_catalogue(model, configuration.catalogues, settled_for=settled_for) or match.catalogue
    exact = match.exact and settled is match.catalogue
    was_settled, before = recorded(model, facts.inspection, settled_for=settled_for)
    done = facts.inspection is not None and facts.inspection.done
    # What was settled without the files being known stays so: facts that come late roll no pod. But one that waits to
    # be started again, perhaps for minutes, is better replaced by one that is known to have what it needs.
    if was_settled and before is None and facts.fails and done:
        was_settled = False
    blind = was_settled and before is None
    known = replace(facts, inspection=None) if blind else facts
    texts = plan_texts(model, facts=known, catalogue=settled, exact=exact, folder=TEXTS)
    findings += _facts_lost(model, facts, before)
    open_arguments = build_arguments(Inputs(model=model, path=file_path, texts=texts.paths), catalogue=settled)
    asked = memory_arguments(model, words=open_arguments.words, catalogue=settled)
    assessment = assess(
        model.spec,
        inspection=facts.inspection,
        nodes=facts.nodes,
        arguments=asked,
        words=open_arguments.words,
        recorded=(was_settled, before),
        choose_nodes=configuration.node_affinity,
        overheads=configuration.gpu_overhead,
    )
    final = replace(model, spec=spec_with(model.spec, assessment.settled))
    pinned = (
        assessment.settled is not None
        and model.spec.gpu is not None
        and "--fit" not in _own_flags(model.spec, settled)
        and not (asked.layers_auto and assessment.settled.gpu_layers is None)
        and not (asked.context_auto and assessment.settled.context_size is None)
    )
    arguments = build_arguments(
        Inputs(model=final, path=file_path, texts=texts.paths, pinned=pinned), catalogue=settled
    )
    report = _check(model, arguments, match=match, configuration=configuration, inspection=facts.inspection)
    findings += [
        *arguments.findings,
        *texts.findings,
        *report.findings,
        *_reserved(model),
        *_too_long(arguments),
        *claim_findings(model.spec, facts.claim_modes),
        *assessment.findings,
        *([facts.name.finding] if facts.name and facts.name.finding else ()),
    ]

    texts_map, scales = build_texts(model, texts.files), build_scales(model)
    server = Server(
        image=image,
        arguments=arguments.words,
        texts=texts_map["metadata"]["name"] if texts_map else None,
        scales=scales["metadata"]["name"] if scales else None,
        prompt_cache_mib=prompt_cache_mib(model.spec) if "--cache-ram" in arguments.fields else 0,
        drain=settled_drain(
            # Where the operator's image could not even inspect, a pod that needs it might never start.
            image=facts.operator_image if _image_runs(facts.inspection) else "",
            running=facts.running_drain,
            keep=facts.running and was_settled,
            asleep=not facts.running_revision,
        ),
        reach=reach_of(model.spec, facts.claim_modes),
        check=settled_check(
            facts.inspection,
            files=files_of(model.spec),
            keys_file=KEYS_FILE if model.spec.api_key_secret_ref else "",
            mount={claim: mount_path(claim) for claim in model.spec.claims},
            image=facts.operator_image,
            running=facts.running_check,
            keep=facts.running and was_settled,
            asleep=not facts.running_revision,
        ),
    )
    deployment = build_deployment(final, server=server)
    template = deployment["spec"]["template"]
    revision = _digest(template)
    template["metadata"]["labels"][REVISION_LABEL] = revision
    hold = _hold(model, assessment, runs=facts.running_revision == revision)
    if hold:
        deployment["spec"]["replicas"] = 0
    name = child_name(model.name)
    children = (texts_map, scales, build_service(model), deployment, build_disruption_budget(model, reach=server.reach))
    return Plan(
        name=name,
        revision=revision,
        image=image,
        build=build,
        flags=settled.build,
        settled_for=settled_for,
        command=("llama-server", *_shown(model, arguments)),
        endpoint=f"http://{name}.{model.namespace}.svc:{PORT}",
        objects=tuple(_stamped(child) for child in children if child is not None),
        findings=tuple(sorted(findings, key=lambda finding: list(Severity).index(finding.severity))),
        will_not_start=report.will_not_start or hold or None,
        spec=final.spec,
        settled=assessment.settled,
        inspection=facts.inspection,
        estimate=assessment.estimate,
        fits=assessment.fits,
        largest_context=assessment.largest_context,
        hold=hold,
        gateway_names=names_in_status(model, facts.name),
    )


def _image_runs(inspection: Inspection | None) -> bool:
    """Whether the operator's image is known to run where the model does, or is needed there anyway."""
    return inspection is not None and (inspection.done or inspection.checks_at_start)


def _hold(model: LlamaModel, assessment: Assessment, *, runs: bool) -> str:
    """Why the policy Block starts no pod. What runs is left alone, also where nodes got smaller since."""
    if model.spec.settled_memory_policy is not MemoryPolicy.BLOCK or not assessment.fits.holds or runs:
        return ""
    if not model.spec.wanted_replicas:
        return ""
    return f"no pod is started, since spec.memoryPolicy is Block: {assessment.fits.message}"


def _facts_lost(model: LlamaModel, facts: Facts, before: SettledStatus | None) -> Iterator[Finding]:
    """The chat template that pods run with came from the file, and nobody can look into it now: they keep theirs."""
    lost = facts.inspection is not None and facts.inspection.state is InspectionState.UNKNOWN
    if before is None or not lost or model.spec.system_prompt is None or model.spec.chat_template is not None:
        return
    yield Finding(
        severity=Severity.ERROR,
        code=FindingCode.TEXT_MISSING,
        field="spec.systemPrompt",
        message="the system prompt was put into the GGUF's own chat template, and the file cannot be inspected now",
        suggestion="see the condition Inspected; what runs is left as it is meanwhile",
    )


def _own_flags(spec: LlamaModelSpec, catalogue: Catalogue) -> frozenset[str]:
    """Canonical names of the flags that extraArgs and variables of the user set."""
    words = (catalogue.find(word) for word in spec.extra_args or ())
    variables = (catalogue.find_env(str(entry.get("name", ""))) for entry in spec.env or ())
    return frozenset(flag.name for flag in (*words, *variables) if flag is not None)


def _build(model: LlamaModel, image: str) -> tuple[int | None, list[Finding]]:
    """The build that will run: as the image's tag says, else the field, else a server of the same image."""
    said = {
        f"the tag of image {image}": build_of_image(image),
        "spec.engine.build": model.spec.engine.build,
        "the running server": _server_build(model, image),
    }
    known = {source: build for source, build in said.items() if build is not None}
    build = next(iter(known.values()), None)
    if build is None:
        finding = Finding(
            severity=Severity.INFO,
            code=FindingCode.BUILD_UNKNOWN,
            field="spec.image",
            message=f"the tag of image {image} does not say which build of llama.cpp it holds; the flags of the newest"
            " known build are used",
            suggestion="use an image whose tag names the build, such as …:server-cuda-b10434, or set spec.engine.build",
        )
        return None, [finding]
    if len(set(known.values())) > 1:
        finding = Finding(
            severity=Severity.WARNING,
            code=FindingCode.BUILD_MISMATCH,
            field="spec.engine.build" if model.spec.engine.build else "spec.image",
            message="; ".join(f"{source} says b{number}" for source, number in known.items())
            + f": the flags of b{build} are used",
            suggestion="correct spec.engine.build or the tag, so that flags are chosen for the build that runs",
        )
        return build, [finding]
    return build, []


def _server_build(model: LlamaModel, image: str) -> int | None:
    """What a server of this image told of itself before."""
    engine = model.status.get("engine")
    if not isinstance(engine, Mapping) or engine.get("image") != image:
        return None
    return _number(engine.get("build"))


def _settled_for(model: LlamaModel, image: str) -> str:
    """Digest of what values are settled for: all of the spec but what only starts and stops pods. Another value of the
    annotation llamamodel.dev/settle has them settled anew."""
    kept = {k: v for k, v in model.spec.to_wire().items() if k not in _WITHOUT_EFFECT_ON_PODS}
    asked = model.annotations.get(SETTLE_ANNOTATION)
    return _digest({"image": image, "spec": kept, **({"asked": asked} if asked else {})})


_WITHOUT_EFFECT_ON_PODS = ("memoryPolicy", "replicas", "requireOffload", "suspend")


def _settled_catalogue(model: LlamaModel, catalogues: Catalogues, *, settled_for: str) -> Catalogue | None:
    """The catalogue that the running command line was written for. A newer catalogue, or a server that tells its
    build, must not roll pods whose spec did not change."""
    engine = model.status.get("engine")
    if not isinstance(engine, Mapping) or engine.get("settledFor") != settled_for:
        return None
    settled = _number(engine.get("flags"))
    return catalogues.get(settled) if settled in catalogues.builds else None


def _number(build: object) -> int | None:
    """Of a build as the status has it, such as b10434."""
    found = re.fullmatch("b([0-9]{1,9})", build) if isinstance(build, str) else None
    return int(found[1]) if found else None


def _check(
    model: LlamaModel,
    arguments: Arguments,
    *,
    match: CatalogueMatch,
    configuration: Configuration,
    inspection: Inspection | None,
) -> ArgumentReport:
    """What the user's own words and variables do to the command line, alone and together with the fields."""
    spec = model.spec
    managed = dict(MANAGED_FLAGS)
    if spec.lora_adapters:
        managed |= dict.fromkeys(("--lora", "--lora-scaled"), "use spec.loraAdapters: others would change their ids")
    if spec.api_key_secret_ref:
        more = "put the key into the Secret of spec.apiKeySecretRef: llama-server takes the keys of all"
        managed |= dict.fromkeys(("--api-key", "--api-key-file"), more)
    report = check_arguments(
        spec.extra_args or (),
        spec.env or (),
        match=match,
        catalogues=configuration.catalogues,
        managed=managed,
        typed={flag: field for flag, field in arguments.fields.items() if flag not in managed},
        policy=configuration.policy,
        mounts=tuple(dict.fromkeys(file_path(file).removesuffix(file.path) for file in spec.files)),
    )
    together = check_combinations(
        arguments.words,
        match=match,
        fields=arguments.fields,
        extra_args_from=len(arguments.words) - len(spec.extra_args or ()),
        env=spec.env or (),
        facts=_model_facts(spec, inspection),
    )
    return replace(report, findings=(*report.findings, *together))


def _model_facts(spec: LlamaModelSpec, inspection: Inspection | None) -> ModelFacts:
    gpus = spec.gpu.count if spec.gpu else None
    model = inspection.model if inspection is not None else None
    if model is None:
        return ModelFacts(gpus=gpus)
    mla = {f"{model.architecture}.attention.{name}_length_mla" for name in ("key", "value")} <= model.metadata.keys()
    trained = model.metadata.get(f"{model.architecture}.context_length")
    return ModelFacts(gpus=gpus, n_ctx_train=trained if isinstance(trained, int) and trained > 0 else None, mla=mla)


def _reserved(model: LlamaModel) -> Iterator[Finding]:
    for index, entry in enumerate(model.spec.env or ()):
        name = str(entry.get("name", ""))
        if name.startswith(RESERVED_VARIABLES):
            yield Finding(
                severity=Severity.ERROR,
                code=FindingCode.MANAGED_FLAG,
                field=f"spec.env[{index}].name",
                message=f"{name}: variables that begin with {RESERVED_VARIABLES} are the operator's own",
                suggestion="choose another name",
            )


_LONGEST_WORD_BYTES = 131_071
"""Linux takes no longer argument (MAX_ARG_STRLEN)."""
_LONGEST_COMMAND_BYTES = 524_288
"""Of all arguments: they stand in the Deployment and in the ReplicaSets of it, and etcd takes 1.5 MiB."""


def _too_long(arguments: Arguments) -> Iterator[Finding]:
    lengths = [len(word.encode(errors="replace")) for word in arguments.words]
    if max(lengths, default=0) <= _LONGEST_WORD_BYTES and sum(lengths) <= _LONGEST_COMMAND_BYTES:
        return
    yield Finding(
        severity=Severity.ERROR,
        code=FindingCode.INVALID_FIELD,
        field="spec",
        message=f"the command line has {sum(lengths):,} bytes, and its longest argument {max(lengths):,}; expected"
        f" {_LONGEST_COMMAND_BYTES:,} and {_LONGEST_WORD_BYTES:,} at most",
        suggestion="put long texts into a ConfigMap or a file on the volume",
    )


def _shown(model: LlamaModel, arguments: Arguments) -> Iterator[str]:
    """The words as the server gets them, secrets masked."""
    scales = {
        f"$({LORA_SCALE_VARIABLE.format(index=index)})": plain_number(adapter.settled_scale)
        for index, adapter in enumerate(model.spec.lora_adapters or ())
    }
    if not scales:
        yield from (word.replace("$$", "$") for word in mask_command(arguments.words))
        return
    reference = re.compile(r"(?<!\$)(?:" + "|".join(map(re.escape, scales)) + ")")
    for word in mask_command(arguments.words):
        yield reference.sub(lambda found: scales[found[0]], word).replace("$$", "$")


def _stamped(child: dict[str, Any]) -> dict[str, Any]:
    metadata = child["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_HASH_ANNOTATION: _digest(child)}
    return {**child, "metadata": {**metadata, "annotations": annotations}}


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_JSON.encode(value).encode()).hexdigest()[:16]


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)
