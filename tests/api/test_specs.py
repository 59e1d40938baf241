"""The API server refuses bad specs with a sentence that helps, and the types think about them as it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel
from llamamodel_operator.core.schema_check import check_schema

from .harness.bench import Bench
from .harness.kube import Kube, Obj, RefusedByServerError
from .harness.models import Manifest, a_model


@dataclass(frozen=True)
class Good:
    """A spec that is taken."""

    title: str
    model: Manifest


@dataclass(frozen=True)
class Bad:
    """A spec that is refused, with these words in the message: the field, and what to do about it.

    `only_by_server` says why the types do not refuse it as well.
    """

    title: str
    model: Manifest
    words: tuple[str, ...]
    only_by_server: str = ""


def _engine(**fields: Any) -> Manifest:
    return a_model().with_(engine=fields)


def _env(*names: str) -> Manifest:
    return a_model().with_(env=[{"name": name, "value": "x"} for name in names])


def _resources(**fields: Any) -> Manifest:
    return a_model().with_(resources=fields)


LONG_NAME = "x" * 200

GOOD = (
    Good("nothing but the file", a_model()),
    Good("a file in a folder", a_model().reading("qwen3/8b/Qwen3-8B-Q4_K_M.gguf")),
    Good("a file whose name has two dots", a_model().reading("qwen..3.gguf")),
    Good("a file with a space and an umlaut in its name", a_model().reading("mein Modell ü.gguf")),
    Good("a Secret of API keys", a_model().with_(apiKeySecretRef={"name": "llama.keys"})),
    Good("an entry of it", a_model().with_(apiKeySecretRef={"name": "keys", "key": "Mine_1.txt"})),
    Good("a claim with a dot in its name", a_model().reading("m.gguf", claim="team.models")),
    Good("a name with dots", a_model("qwen2.5-7b")),
    Good("a name of 200 characters", a_model(LONG_NAME)),
    Good("a name that begins with a digit", a_model("7b")),
    Good("as many layers on the GPU as fit", _engine(gpuLayers="auto")),
    Good("all layers on the GPU", _engine(gpuLayers="all")),
    Good("no layer on the GPU", _engine(gpuLayers=0)),
    Good("some layers on the GPU", _engine(gpuLayers=33)),
    Good("the context size that the model was trained with", _engine(contextSize=0)),
    Good("a quantized V cache with flash attention", _engine(flashAttention="enabled", cacheTypeV="q8_0")),
    Good("a quantized V cache with automatic flash attention", _engine(flashAttention="auto", cacheTypeV="q4_0")),
    Good("a quantized V cache and no word about flash attention", _engine(cacheTypeV="q8_0")),
    Good("a quantized K cache without flash attention", _engine(flashAttention="disabled", cacheTypeK="q8_0")),
    Good("a 16 bit V cache without flash attention", _engine(flashAttention="disabled", cacheTypeV="bf16")),
    Good("a micro batch as large as the batch", _engine(batchSize=512, microBatchSize=512)),
    Good("quantities as text", _resources(limits={"cpu": "1500m", "memory": "4Gi"})),
    Good("quantities as numbers", _resources(limits={"cpu": 2, "memory": 4294967296})),
    Good("quantities in every spelling", _resources(requests={"cpu": ".5", "memory": "4e9", "a.example/b": "1E"})),
    Good("one GPU", a_model().with_(gpu={})),
    Good("two GPUs of another maker", a_model().with_(gpu={"count": 2, "resourceName": "amd.com/gpu"})),
    Good("GPUs and resources", _resources(limits={"cpu": 1}).with_(gpu={"count": 1})),
    Good("no pods", a_model().with_(replicas=0)),
    Good("suspended", a_model().with_(suspend=True)),
    Good("a day to start", a_model().with_(startupTimeoutSec=86_400)),
    Good("an image with a digest", a_model().with_(image="example.com:5000/Team/llama.cpp@sha256:0f")),
    Good("a served name with a slash and a colon", a_model().with_(servedModelName="qwen/qwen3:8b")),
    Good("the same value under two names", _env("A", "B")),
    Good("a toleration of everything", a_model().with_(tolerations=[{"operator": "Exists"}])),
    Good("labels of the user's own", a_model().with_(podLabels={"app.kubernetes.io/part-of": "chat", "team": "a"})),
    Good("empty lists and maps", a_model().with_(env=[], tolerations=[], nodeSelector={}, affinity={}, resources={})),
    Good(
        "all of what is read from elsewhere",
        a_model().with_(
            task="generate",
            chatTemplate={"configMapKeyRef": {"name": "t.v1", "key": "it.jinja"}},
            grammar={"jsonSchema": '{"type": ["string", "null"]}'},
            systemPrompt={"inline": "x" * 100_000},
            requestDefaults={"temperature": 0.2, "stop": ["a"], "max_tokens": -1},
            speculative={"draftModel": {"pvc": {"claimName": "m", "path": "d.gguf"}}, "minProbability": 0.5},
            loraAdapters=[{"name": "a.b-1", "pvc": {"claimName": "m", "path": "a $(X).gguf"}, "scale": -0.5}],
            projector={"pvc": {"claimName": "m", "path": "p.gguf"}, "offload": False},
            extraArgs=["--top-n-sigma", "1.5", ""],
            logging={"verbose": True, "timestamps": False, "colors": "disabled"},
        ),
    ),
    Good(
        "all of the engine",
        _engine(
            build=10434,
            kvUnified=True,
            batchThreads=2,
            contBatching=False,
            tensorSplit=[3, 1.5],
            splitMode="row",
            mainGpu=1,
            kvOffload=False,
            swaFull=True,
            defragThreshold=-1,
            promptCacheSize=0,
            memoryMap=False,
            memoryLock=True,
            numa="isolate",
            cpuMoeLayers="all",
            overrideTensors=["blk[.]1=CPU"],
            ropeScaling="yarn",
            ropeFreqBase=1e6,
            ropeFreqScale=0.25,
            pooling="cls",
            timeoutSec=60,
            skipWarmup=True,
            checkTensors=False,
        ),
    ),
    Good("nothing as null", a_model().with_(image=None, gpu=None, engine=None, replicas=None, env=None)),
)

KUBERNETES_OWN = "Kubernetes' own type, which the types pass on as it is"
LENIENT = "the types read a number or a boolean from text"
UNKNOWN = "the types ignore unknown fields, so that an older operator reads a newer LlamaModel"

BAD = (
    Bad(
        "a path that leaves the volume",
        a_model().reading("../m.gguf"),
        ("spec.model.pvc.path", "..", "root of the volume"),
    ),
    Bad("a path that leaves a folder", a_model().reading("a/../../m.gguf"), ("spec.model.pvc.path", "..")),
    Bad("a path that ends above", a_model().reading("a/.."), ("spec.model.pvc.path", "..")),
    Bad("an absolute path", a_model().reading("/models/m.gguf"), ("spec.model.pvc.path", "remove the leading /")),
    Bad("a folder", a_model().reading("models/"), ("spec.model.pvc.path", "must name a file, not a folder")),
    Bad("an empty path", a_model().reading(""), ("spec.model.pvc.path",)),
    Bad("a path that is too long", a_model().reading("a" * 1025), ("spec.model.pvc.path", "1024")),
    Bad(
        "a path with a line break",
        a_model().reading("m\n.gguf"),
        ("spec.model.pvc.path", "control characters"),
    ),
    Bad("no path", a_model().with_(model={"pvc": {"claimName": "models"}}), ("spec.model.pvc.path", "Required")),
    Bad("no source", a_model().with_(model={}), ("spec.model.pvc", "Required")),
    Bad("no model", Manifest("llamamodel.dev/v1alpha1", "LlamaModel", "gemma"), ("spec.model", "Required")),
    Bad(
        "a claim in capitals",
        a_model().reading("m.gguf", claim="Models"),
        ("spec.model.pvc.claimName", "lower case letters"),
    ),
    Bad(
        "a claim of another namespace",
        a_model().reading("m.gguf", claim="team/models"),
        ("spec.model.pvc.claimName", "must be the name of an object"),
    ),
    Bad("an empty claim", a_model().reading("m.gguf", claim=""), ("spec.model.pvc.claimName",)),
    Bad(
        "a quantity with a space",
        _resources(limits={"memory": "4 GB"}),
        ("spec.resources.limits", "4 GB", "such as 4Gi"),
    ),
    Bad("a quantity in words", _resources(requests={"cpu": "two"}), ("spec.resources.requests", "two", "500m")),
    Bad("a quantity with a unit of bits", _resources(limits={"memory": "4gb"}), ("spec.resources.limits", "4gb")),
    Bad("an empty quantity", _resources(limits={"memory": ""}), ("spec.resources.limits", "not a quantity")),
    Bad("a fraction that YAML reads as a number", _resources(limits={"cpu": 0.5}), ("spec.resources.limits", "cpu")),
    Bad("no time to start", a_model().with_(startupTimeoutSec=0), ("spec.startupTimeoutSec", "1")),
    Bad("more than a day to start", a_model().with_(startupTimeoutSec=90_000), ("spec.startupTimeoutSec", "86400")),
    Bad("less than no pods", a_model().with_(replicas=-1), ("spec.replicas", "0")),
    Bad("too many pods", a_model().with_(replicas=1001), ("spec.replicas", "1000")),
    Bad("half a pod", a_model().with_(replicas=1.5), ("spec.replicas", "integer")),
    Bad("many pods", a_model().with_(replicas="many"), ("spec.replicas", "integer")),
    Bad("two pods as text", a_model().with_(replicas="2"), ("spec.replicas", "integer"), only_by_server=LENIENT),
    Bad("a boolean as text", a_model().with_(suspend="true"), ("spec.suspend", "boolean"), only_by_server=LENIENT),
    Bad(
        "a context size in thousands",
        _engine(contextSize="8k"),
        ("spec.engine.contextSize", "auto, or a number of tokens", "8k"),
    ),
    Bad("a negative context size", _engine(contextSize=-1), ("spec.engine.contextSize", "0")),
    Bad("no slots", _engine(parallelSlots=0), ("spec.engine.parallelSlots", "1")),
    Bad("no threads", _engine(threads=0), ("spec.engine.threads", "1")),
    Bad("layers in words", _engine(gpuLayers="most"), ("spec.engine.gpuLayers", "auto, all", "most")),
    Bad("minus one layer", _engine(gpuLayers=-1), ("spec.engine.gpuLayers", "auto, all", "-1")),
    Bad("half a layer", _engine(gpuLayers=1.5), ("spec.engine.gpuLayers",)),
    Bad(
        "a number of layers as text",
        _engine(gpuLayers="12"),
        ("spec.engine.gpuLayers", "auto, all", "12"),
    ),
    Bad("flash attention that YAML made a boolean", _engine(flashAttention=True), ("spec.engine.flashAttention",)),
    Bad("flash attention that is not known", _engine(flashAttention="on"), ("spec.engine.flashAttention", '"enabled"')),
    Bad("a cache type that is not known", _engine(cacheTypeK="q3"), ("spec.engine.cacheTypeK", '"q4_0"')),
    Bad(
        "a quantized V cache without flash attention",
        _engine(flashAttention="disabled", cacheTypeV="q8_0"),
        ("spec.engine", "cacheTypeV", "set flashAttention to enabled or auto"),
    ),
    Bad(
        "a micro batch that is larger than the batch",
        _engine(batchSize=256, microBatchSize=512),
        ("spec.engine", "microBatchSize must not be larger than batchSize"),
    ),
    Bad(
        "a served name with a comma",
        a_model().with_(servedModelName="a,b"),
        ("spec.servedModelName", "commas"),
    ),
    Bad(
        "a served name with a space",
        a_model().with_(servedModelName="my model"),
        ("spec.servedModelName", "spaces"),
    ),
    Bad("an empty served name", a_model().with_(servedModelName=""), ("spec.servedModelName",)),
    Bad(
        "an image with a space",
        a_model().with_(image="llama.cpp server"),
        ("spec.image", "must be an image reference such as"),
    ),
    Bad("an empty image", a_model().with_(image=""), ("spec.image",)),
    Bad(
        "a pull policy that is not known",
        a_model().with_(imagePullPolicy="Sometimes"),
        ("spec.imagePullPolicy", '"Never"'),
    ),
    Bad("no GPU asked for as a GPU", a_model().with_(gpu={"count": 0}), ("spec.gpu.count", "1")),
    Bad("GPUs by memory", a_model().with_(gpu={"count": "24Gi"}), ("spec.gpu.count", "integer")),
    Bad(
        "a GPU of no vendor",
        a_model().with_(gpu={"resourceName": "gpu"}),
        ("spec.gpu.resourceName", "nvidia.com/gpu"),
    ),
    Bad(
        "GPUs that are limited a second time",
        _resources(limits={"nvidia.com/gpu": 1}).with_(gpu={"count": 1}),
        ("spec", "GPUs are asked for in spec.gpu: remove them from spec.resources"),
    ),
    Bad(
        "GPUs that are requested a second time",
        _resources(requests={"amd.com/gpu": 1}).with_(gpu={"resourceName": "amd.com/gpu"}),
        ("spec", "GPUs are asked for in spec.gpu: remove them from spec.resources"),
    ),
    Bad(
        "a label that the selector uses",
        a_model().with_(podLabels={"llamamodel.dev/model": "x"}),
        ("spec.podLabels", "choose"),
    ),
    Bad(
        "a label that the operator sets",
        a_model().with_(podLabels={"app.kubernetes.io/managed-by": "me"}),
        ("spec.podLabels", "app.kubernetes.io/managed-by", "choose other labels"),
    ),
    Bad("a label that is a number", a_model().with_(podLabels={"version": 2}), ("spec.podLabels.version", "string")),
    Bad(
        "a node label that is a boolean",
        a_model().with_(nodeSelector={"gpu": True}),
        ("spec.nodeSelector.gpu", "string"),
    ),
    Bad("a variable twice", _env("A", "A"), ("spec.env[1]", "Duplicate"), only_by_server=KUBERNETES_OWN),
    Bad(
        "a variable without a name",
        a_model().with_(env=[{"value": "x"}]),
        ("spec.env[0].name", "Required"),
        only_by_server=KUBERNETES_OWN,
    ),
    Bad(
        "a toleration with an unknown field",
        a_model().with_(tolerations=[{"key": "gpu", "effct": "NoSchedule"}]),
        ("spec.tolerations[0].effct", "unknown field"),
        only_by_server=KUBERNETES_OWN,
    ),
    Bad(
        "a toleration with an unknown effect",
        a_model().with_(tolerations=[{"key": "gpu", "effect": "NoWay"}]),
        ("spec.tolerations[0].effect", "NoSchedule"),
        only_by_server=KUBERNETES_OWN,
    ),
    Bad(
        "a pod security context of a wrong type",
        a_model().with_(podSecurityContext={"runAsUser": "root"}),
        ("spec.podSecurityContext.runAsUser", "integer"),
        only_by_server=KUBERNETES_OWN,
    ),
    Bad(
        "a grammar from two places",
        a_model().with_(grammar={"builtin": "json", "inline": "root ::= x"}),
        ("spec.grammar", "exactly one of builtin, inline"),
    ),
    Bad("a chat template from nowhere", a_model().with_(chatTemplate={}), ("spec.chatTemplate", "exactly one of")),
    Bad("a grammar that is not there", a_model().with_(grammar={"builtin": "xml"}), ("spec.grammar.builtin", '"csv"')),
    Bad(
        "an adapter with a comma in its path",
        a_model().with_(loraAdapters=[{"name": "a", "pvc": {"claimName": "m", "path": "a,b.gguf"}}]),
        ("spec.loraAdapters[0].pvc", "must not contain ','"),
    ),
    Bad(
        "two adapters of one name",
        a_model().with_(loraAdapters=[{"name": "a", "pvc": {"claimName": "m", "path": "a.gguf"}}] * 2),
        ("spec.loraAdapters[1]", "Duplicate"),
    ),
    Bad(
        "drafts of at least more than at most",
        a_model().with_(
            speculative={"draftModel": {"pvc": {"claimName": "m", "path": "d.gguf"}}, "minTokens": 5, "maxTokens": 2}
        ),
        ("spec.speculative", "minTokens must not be larger than maxTokens"),
    ),
    Bad(
        "a key of API keys with a slash",
        a_model().with_(apiKeySecretRef={"name": "keys", "key": "a/b"}),
        ("spec.apiKeySecretRef.key", "must be a key of a Secret"),
    ),
    Bad(
        "API keys without the name of a Secret",
        a_model().with_(apiKeySecretRef={"key": "mine"}),
        ("spec.apiKeySecretRef.name", "Required"),
    ),
    Bad("a negative prompt cache", _engine(promptCacheSize="-1Gi"), ("spec.engine.promptCacheSize", "0 or more")),
    Bad("an override without a buffer", _engine(overrideTensors=["exps"]), ("overrideTensors[0]", "PATTERN=BUFFER")),
    Bad("experts in words", _engine(cpuMoeLayers="most"), ("spec.engine.cpuMoeLayers", "all", "most")),
    Bad("a task that is not known", a_model().with_(task="chat"), ("spec.task", '"rerank"')),
    Bad("tolerations that are no list", a_model().with_(tolerations="gpu"), ("spec.tolerations", "array")),
    Bad("an engine that is a word", a_model().with_(engine="fast"), ("spec.engine", "object")),
    Bad("an unknown field", a_model().with_(modle="x"), ("spec.modle", "unknown field"), only_by_server=UNKNOWN),
    Bad(
        "an unknown field of the engine",
        _engine(ctxSize=1),
        ("spec.engine.ctxSize", "unknown field"),
        only_by_server=UNKNOWN,
    ),
    Bad("a flag in place of its field", _engine(**{"n-gpu-layers": 1}), ("unknown field",), only_by_server=UNKNOWN),
)


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> str:
    """One for all cases: nothing is stored, the requests are dry runs."""
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "specs"}})
    return "specs"


def _parsed(model: Obj, namespace: str) -> LlamaModel:
    identity = {"namespace": namespace, "uid": "0"}
    return LlamaModel.parse({**model, "metadata": {**model["metadata"], **identity}})


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.title)
def test_a_good_spec_is_taken_and_the_types_read_what_was_stored(case: Good, kube: Kube, namespace: str) -> None:
    stored = kube.create(case.model.in_(namespace).body, dry_run=True)

    assert _parsed(stored, namespace).name == case.model.name


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.title)
def test_a_bad_spec_is_refused_by_field_and_with_advice(case: Bad, kube: Kube, namespace: str) -> None:
    with pytest.raises(RefusedByServerError) as refused:
        kube.create(case.model.in_(namespace).body, dry_run=True)

    message = str(refused.value)
    assert [word for word in case.words if word not in message] == [], message


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.title)
def test_the_types_refuse_what_the_api_server_refuses_but_for_what_is_left_to_it(case: Bad, namespace: str) -> None:
    if case.only_by_server:
        assert _parsed(case.model.body, namespace).name == "gemma", "strike the exception, the types refuse it too now"
    else:
        with pytest.raises(InvalidLlamaModelError, match=r"^spec\b"):
            _parsed(case.model.body, namespace)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.title)
def test_a_dry_run_without_a_cluster_refuses_what_the_api_server_refuses(case: Bad, namespace: str) -> None:
    by_schema = check_schema(case.model.in_(namespace).body)
    try:
        _parsed(case.model.body, namespace)
    except InvalidLlamaModelError:
        return
    assert [finding for finding in by_schema if finding.severity is Severity.ERROR]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.title)
def test_a_dry_run_without_a_cluster_takes_what_the_api_server_takes(case: Good, namespace: str) -> None:
    assert [f for f in check_schema(case.model.in_(namespace).body) if f.severity is Severity.ERROR] == []


def test_defaults_are_filled_in_and_only_those_that_are_promised(bench: Bench) -> None:
    stored = bench.create(a_model().with_(gpu={}))["spec"]

    assert stored == {
        "model": {"pvc": {"claimName": "models", "path": "gemma.gguf"}},
        "replicas": 1,
        "gpu": {},
    }


def test_a_null_is_the_same_as_nothing(bench: Bench) -> None:
    stored = bench.create(a_model().with_(replicas=None, gpu=None, engine=None, nodeSelector={"zone": None}))["spec"]

    assert stored["replicas"] == 1
    assert "gpu" not in stored
    assert "engine" not in stored


def test_a_user_cannot_write_a_status_through_the_spec(bench: Bench) -> None:
    body = a_model().in_(bench.namespace).body | {"status": {"phase": "Ready"}}

    assert "status" not in bench.kube.create(body)
