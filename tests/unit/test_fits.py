"""Whether a model fits the nodes that it may run on, what is said about it, and what is settled by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.findings import FindingCode, Severity
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.inspection import Inspection, inspection_off, not_inspected
from llamamodel_operator.core.inventory import NodeGpus, matching_nodes
from llamamodel_operator.core.observed import Observed
from llamamodel_operator.core.plan import Plan, make_plan
from llamamodel_operator.core.review import Know, nobody_looks, review_manifest
from llamamodel_operator.core.settling import host_need, startup_timeout
from llamamodel_operator.core.sizes import mebibytes, shown_size
from llamamodel_operator.core.status import make_status
from llamamodel_operator.core.text.template import examine_template

from .builders import CONFIGURATION, NOON, ModelBuilder, a_model
from .gguf_models import GIB, a_header, a_node, an_8b, facts_of, inspected

SMALL = a_model().with_gpu().with_engine(contextSize=8192)
"""An 8b at 8,192 tokens takes 9.2 GiB."""
BLOCKED = SMALL.with_spec(memoryPolicy="Block")
UNKNOWN_FILES = Facts(inspection=inspection_off(), nodes=(a_node(),))


def plan(model: ModelBuilder, *nodes: NodeGpus, **facts: Any) -> Plan:
    return model.plan(facts_of(an_8b(), *nodes, **facts))


def verdict(plan: Plan) -> tuple[str, str]:
    return plan.fits.status.value, plan.fits.reason.value


def after(model: ModelBuilder, plan: Plan) -> ModelBuilder:
    """The model with the status that a pass with this plan writes."""
    return model.with_status(make_status(model.build(), plan=plan, observed=Observed(deployment=None), now=NOON))


def deployment(plan: Plan) -> Mapping[str, Any]:
    return next(child for child in plan.objects if child["kind"] == "Deployment")


def arguments(plan: Plan, *flags: str) -> list[str | None]:
    """The values of flags; None of those that are not given."""
    words = plan.command
    return [words[words.index(flag) + 1] if flag in words else None for flag in flags]


PLACED = ("--ctx-size", "--n-gpu-layers", "--fit")

# The verdict


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([a_node()], ("True", "MemoryFits")),
        ([a_node(memory_mib=9600)], ("True", "MemoryFits")),
        ([a_node(memory_mib=8192), a_node("b")], ("True", "MemoryFits")),
        ([a_node(memory_mib=None), a_node("b")], ("True", "MemoryFits")),
        ([a_node(memory_mib=8192)], ("False", "MemoryTooSmall")),
        ([a_node(memory_mib=8192), a_node("b", memory_mib=4096)], ("False", "MemoryTooSmall")),
        ([], ("Unknown", "NoNodeYet")),
        ([a_node(resource="amd.com/gpu")], ("Unknown", "NoNodeYet")),
        ([a_node(memory_mib=None)], ("Unknown", "GpuMemoryUnknown")),
        ([a_node(memory_mib=8192), a_node("b", memory_mib=None)], ("Unknown", "GpuMemoryUnknown")),
        ([a_node(gpu_replicas="4")], ("Unknown", "GpuShared")),
        ([a_node(memory_mib=8192), a_node("b", gpu_replicas="2")], ("Unknown", "GpuShared")),
    ],
)
def test_one_node_that_can_take_it_is_enough_and_one_that_says_nothing_leaves_it_open(
    nodes: list[NodeGpus], found: tuple[str, str]
) -> None:
    assert verdict(plan(SMALL, *nodes)) == found


def test_what_devices_say_is_compared_and_named_and_no_node_is_chosen_by_it() -> None:
    def dra(name: str, memory: int) -> NodeGpus:
        return replace(a_node(name, memory_mib=None), device_memory={"nvidia.com/gpu": memory})

    found = plan(SMALL.with_engine(gpuLayers="auto"), dra("a", 8 * GIB), dra("b", 24 * GIB))
    assert arguments(found, *PLACED) == ["8192", "28", "off"]
    assert "affinity" not in deployment(found)["spec"]["template"]["spec"]
    assert "b 24Gi (as its ResourceSlice says), a 8Gi (as its ResourceSlice says)" in found.fits.message
    held = plan(BLOCKED.with_engine(gpuLayers="all"), dra("a", 8 * GIB))
    assert held.hold
    assert verdict(plan(SMALL, dra("a", 24 * GIB), a_node("b", memory_mib=8192))) == ("True", "MemoryFits")


def test_without_the_right_to_read_nodes_it_is_unknown() -> None:
    found = SMALL.plan(Facts(inspection=inspected(an_8b()), nodes=None))
    assert verdict(found) == ("Unknown", "NodesNotVisible")
    assert "set spec.gpu.memory" in found.fits.message


@pytest.mark.parametrize(
    ("given", "status"), [("24Gi", "True"), ("8Gi", "False"), (str(24 * GIB), "True"), ("8192M", "False")]
)
@pytest.mark.parametrize("nodes", [None, (), (a_node(memory_mib=None),), (a_node(memory_mib=81920, gpu_replicas="2"),)])
def test_what_the_spec_says_of_its_gpus_holds_whatever_nodes_say(
    given: str, status: str, nodes: tuple[NodeGpus, ...] | None
) -> None:
    model = SMALL.with_spec(gpu={"count": 1, "memory": given})
    assert model.plan(Facts(inspection=inspected(an_8b()), nodes=nodes)).fits.status == status


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (Facts(nodes=(a_node(),)), "the files have not been inspected"),
        (UNKNOWN_FILES, "not set up to inspect"),
        (facts_of(replace(an_8b(digest="f" * 64), metadata={"general.architecture": "llama"})), "llama."),
    ],
)
def test_without_facts_there_is_no_estimate_and_nothing_is_pinned(facts: Facts, why: str) -> None:
    found = SMALL.plan(facts)
    assert found.estimate is None
    assert verdict(found) == ("Unknown", "NotEstimated")
    assert why in found.fits.message
    assert arguments(found, *PLACED) == ["8192", "auto", None]


def test_it_is_said_what_is_needed_what_there_is_and_what_would_fit() -> None:
    message = plan(
        SMALL.with_engine(gpuLayers="all"), a_node(memory_mib=8192), a_node("b", memory_mib=4096)
    ).fits.message
    assert message.startswith(
        "needs 9.2Gi per GPU; the nodes that match have less: gpu-a 8Gi, b 4Gi; it would fit with "
    )
    assert "spec.engine.gpuLayers: " in message
    assert "spec.gpu.count: 2" in message


def test_it_is_said_why_nodes_with_such_gpus_do_not_match() -> None:
    taint = {"key": "team", "value": "ml", "effect": "NoSchedule"}
    message = plan(SMALL, a_node(taints=(taint,))).fits.message
    assert "gpu-a has the taint team=ml:NoSchedule, which spec.tolerations does not name" in message


def test_what_does_not_fit_is_a_warning_that_names_the_field() -> None:
    found = plan(SMALL.with_engine(gpuLayers="all"), a_node(memory_mib=8192))
    (finding,) = (finding for finding in found.findings if finding.code is FindingCode.MEMORY_TOO_SMALL)
    assert (finding.severity.value, finding.field) == ("warning", "spec.gpu")
    assert finding.suggestion is not None
    assert finding.suggestion.startswith("it would fit with")


def test_gpus_that_are_shared_are_a_warning() -> None:
    codes = [finding.code for finding in plan(SMALL, a_node(gpu_replicas="4")).findings]
    assert FindingCode.GPU_SHARED in codes


@pytest.mark.parametrize(
    ("limit", "found"),
    [(None, ("Unknown", "NoGpuAskedFor")), ("1Gi", ("False", "MemoryTooSmall")), ("4Gi", ("True", "MemoryFits"))],
)
def test_on_the_cpu_only_the_memory_limit_is_compared(limit: str | None, found: tuple[str, str]) -> None:
    model = a_model().with_engine(contextSize=8192)
    assert verdict(plan(model.with_limits(memory=limit) if limit else model, a_node())) == found


def test_the_drivers_overhead_is_what_the_operator_was_told_for_the_vendor() -> None:
    told = replace(CONFIGURATION, gpu_overhead={"nvidia": 2 * GIB})

    def overhead(resource: str) -> int:
        model = SMALL.with_spec(gpu={"resourceName": resource}).build()
        found = make_plan(model, configuration=told, facts=facts_of(an_8b(), a_node(memory_mib=10240)))
        assert found.estimate is not None
        assert (found.fits.status.value == "False") == (resource == "nvidia.com/gpu")
        return found.estimate.gpus[0].overhead

    assert (overhead("nvidia.com/gpu"), overhead("amd.com/gpu")) == (2 * GIB, 640 << 20)


# What is settled


@pytest.mark.parametrize(
    ("engine", "memory_mib", "placed", "status"),
    [
        pytest.param({}, 40960, ["131072", "33", "off"], "True", id="all fits"),
        pytest.param({}, 24576, ["128768", "33", "off"], "False", id="unset context, less than it was trained with"),
        pytest.param({"contextSize": "auto"}, 24576, ["128768", "33", "off"], "True", id="auto accepts that"),
        pytest.param({"contextSize": 0}, 24576, ["0", "29", "off"], "False", id="0 insists, layers do not"),
        pytest.param({"contextSize": 8192}, 8192, ["8192", "28", "off"], "False", id="unset layers"),
        pytest.param({"contextSize": 8192, "gpuLayers": "auto"}, 8192, ["8192", "28", "off"], "True", id="auto layers"),
        pytest.param(
            {"contextSize": 8192, "gpuLayers": "all"}, 8192, ["8192", "all", "off"], "False", id="all insists"
        ),
        pytest.param({"contextSize": 8192, "gpuLayers": 5}, 8192, ["8192", "5", "off"], "True", id="a number"),
    ],
)
def test_what_is_automatic_is_settled_by_the_estimate_and_pinned(
    engine: dict[str, object], memory_mib: int, placed: list[str], status: str
) -> None:
    found = plan(a_model().with_gpu().with_engine(**engine), a_node(memory_mib=memory_mib))
    assert found.fits.status == status
    ours = arguments(found, *PLACED)
    if engine.get("contextSize") == 0:
        assert (ours[0], ours[2]) == (placed[0], placed[2])
    else:
        assert ours == placed
    assert found.estimate is not None
    if engine.get("gpuLayers") != "all" and engine.get("contextSize") != 0:
        assert max(gpu.total for gpu in found.estimate.gpus) <= memory_mib << 20


def test_what_was_not_asked_for_is_said_with_how_to_accept_it() -> None:
    message = plan(a_model().with_gpu(), a_node()).fits.message
    assert "until then it runs with a context of 128768 tokens instead of 131072" in message
    assert message.endswith("auto in spec.engine.contextSize accepts that")


@pytest.mark.parametrize("nodes", [(), (a_node(memory_mib=None),), (a_node(gpu_replicas="2"),)])
def test_what_nobody_can_settle_is_left_to_llama_server(nodes: tuple[NodeGpus, ...]) -> None:
    found = plan(a_model().with_gpu().with_engine(contextSize="auto"), *nodes)
    assert arguments(found, *PLACED) == [None, "auto", None]


def test_a_build_that_knows_no_fitting_is_told_nothing_of_it() -> None:
    old = SMALL.with_spec(image="example.com/llama:server-b4291")
    assert arguments(plan(old, a_node()), *PLACED) == ["8192", "33", None]


def test_a_user_who_sets_the_fitting_or_the_context_keeps_it() -> None:
    model = a_model().with_gpu().with_spec(extraArgs=["-fit", "on", "-c", "4096"])
    found = plan(model, a_node())
    assert not found.errors
    assert found.command.count("--fit") == 0
    assert arguments(found, "--ctx-size", "-c") == [None, "4096"]


def test_of_nodes_of_which_only_some_can_take_it_those_are_required() -> None:
    found = plan(SMALL, a_node(memory_mib=8192), a_node("b"))
    need = max(gpu.total for gpu in found.estimate.gpus) if found.estimate else 0
    (condition,) = required_of(found)
    assert condition == {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [str(-(-need >> 20) - 1)]}


def test_each_term_of_the_users_own_affinity_gets_the_condition() -> None:
    own = [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
        {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["old"]}]},
        {},
    ]
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": own}}
    model = SMALL.with_spec(affinity={"nodeAffinity": rule, "podAffinity": {}})
    found = plan(model, a_node(memory_mib=8192), a_node("b"))
    affinity = deployment(found)["spec"]["template"]["spec"]["affinity"]
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [[e["operator"] for e in term.get("matchExpressions", [])] for term in terms] == [["In", "Gt"], ["Gt"], []]
    assert "podAffinity" in affinity


def test_a_node_that_says_nothing_is_left_out_where_others_say_that_they_have_enough() -> None:
    found = plan(SMALL, a_node(memory_mib=None), a_node("b"))
    assert [condition["operator"] for condition in required_of(found)] == ["Gt"]
    assert "pods may be placed" not in found.fits.message


def test_amds_labels_are_text_so_what_is_too_small_is_named() -> None:
    model = SMALL.with_spec(gpu={"resourceName": "amd.com/gpu"})
    found = plan(model, amd_node("a", "8G"), amd_node("b", "24G"))
    assert required_of(found) == [
        {"key": "amd.com/gpu.vram", "operator": "Exists"},
        {"key": "amd.com/gpu.vram", "operator": "NotIn", "values": [f"{size}G" for size in range(1, 10)]},
    ]
    kept = model.with_spec(affinity=deployment(found)["spec"]["template"]["spec"]["affinity"]).build().spec
    nodes = [amd_node(name, name) for name in ("8G", "9G", "10G", "16G", "192G")]
    assert [node.name for node in matching_nodes([*nodes, amd_node("silent", None)], kept)] == ["10G", "16G", "192G"]


def amd_node(name: str, vram: str | None, *, label: str = "amd.com/gpu.vram") -> NodeGpus:
    return NodeGpus(name=name, labels={label: vram} if vram else {}, allocatable={"amd.com/gpu": 1})


def required_of(found: Plan) -> list[dict[str, Any]]:
    """The expressions of the only term that nodes must meet."""
    affinity = deployment(found)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    expressions: list[dict[str, Any]] = term["matchExpressions"]
    return expressions


def test_where_nodes_cannot_be_chosen_the_smallest_settles_and_it_is_said_where_pods_may_land() -> None:
    old = "beta.amd.com/gpu.vram"
    nodes = (amd_node("a", "8G", label=old), amd_node("b", "24G", label=old))
    model = a_model().with_gpu(resource="amd.com/gpu")
    assert arguments(plan(model.with_engine(contextSize=8192, gpuLayers="auto"), *nodes), *PLACED) == [
        "8192",
        "28",
        "off",
    ]
    found = plan(model.with_engine(contextSize=8192, gpuLayers="all"), *nodes)
    assert "affinity" not in deployment(found)["spec"]["template"]["spec"]
    assert found.fits.message.endswith("pods may be placed on the others too: spec.nodeSelector can keep them away")


def test_nodes_are_not_chosen_where_the_operator_is_told_so() -> None:
    told = replace(CONFIGURATION, node_affinity=False)
    nodes = (a_node(memory_mib=8192), a_node("b"))
    found = make_plan(SMALL.build(), configuration=told, facts=facts_of(an_8b(), *nodes))
    assert "affinity" not in deployment(found)["spec"]["template"]["spec"]
    assert arguments(found, "--n-gpu-layers") == ["28"]


@pytest.mark.parametrize(
    ("model", "nodes"),
    [
        (SMALL, [a_node(), a_node("b")]),
        (SMALL, [a_node(memory_mib=8192)]),
        (SMALL, [a_node(gpu_replicas="4"), a_node("b")]),
        (SMALL.with_spec(gpu={"memory": "24Gi"}), [a_node(memory_mib=8192), a_node("b")]),
        (a_model(), [a_node(memory_mib=8192), a_node("b")]),
    ],
)
def test_else_no_node_is_required(model: ModelBuilder, nodes: list[NodeGpus]) -> None:
    assert "affinity" not in deployment(plan(model, *nodes))["spec"]["template"]["spec"]


def test_the_memory_request_is_what_the_host_needs_and_a_given_one_wins() -> None:
    def requests(model: ModelBuilder) -> dict[str, str]:
        container = deployment(plan(model, a_node()))["spec"]["template"]["spec"]["containers"][0]
        found: dict[str, str] = container["resources"].get("requests", {})
        return found

    found = plan(SMALL, a_node())
    assert found.estimate is not None
    assert requests(SMALL)["memory"] == mebibytes(host_need(found.estimate.host, mapped=True))
    assert requests(SMALL.with_spec(resources={"requests": {"memory": "3Gi"}}))["memory"] == "3Gi"
    assert "memory" not in requests(SMALL.with_limits(memory="3Gi"))


def test_weights_that_are_not_mapped_count_for_the_request() -> None:
    model = a_model().with_engine(contextSize=8192)
    mapped, read = (plan(m, a_node()).settled for m in (model, model.with_engine(memoryMap=False)))
    assert mapped is not None
    assert read is not None
    difference = [int((settled.memory_request or "0Mi").removesuffix("Mi")) for settled in (mapped, read)]
    assert difference[1] - difference[0] > 7000


@pytest.mark.parametrize(
    ("size", "seconds"), [(0, None), (9 * 10**9, None), (9_000_000_001, 301), (50 * 10**9, 1120), (400 * 10**9, 8120)]
)
def test_large_files_get_more_time_to_start(size: int, seconds: int | None) -> None:
    assert startup_timeout(size) == seconds


def test_the_settled_start_up_time_is_in_the_probe_and_a_given_one_wins() -> None:
    large = a_header(layers=80, embedding=8192, heads=64, kv_heads=8, feed_forward=28672, vocabulary=128256)
    facts = facts_of(large, a_node(memory_mib=200_000))

    def seconds(model: ModelBuilder) -> int:
        probe = deployment(model.plan(facts))["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert seconds(a_model().with_gpu()) == startup_timeout(large.size)
    assert seconds(a_model().with_gpu().with_startup_timeout(77)) == 77


# Settled once


CHANGES: list[tuple[NodeGpus, ...] | None] = [
    (),
    None,
    (a_node(memory_mib=8192),),
    (a_node(memory_mib=81920),),
    (a_node(memory_mib=8192), a_node("b")),
    (a_node(memory_mib=None),),
    (a_node(gpu_replicas="4"),),
]


@pytest.mark.parametrize("later", CHANGES)
@pytest.mark.parametrize("model", [a_model().with_gpu(), SMALL, a_model().with_gpu().with_engine(contextSize="auto")])
def test_nodes_that_come_or_change_later_never_change_the_pod_template(
    model: ModelBuilder, later: tuple[NodeGpus, ...] | None
) -> None:
    first = plan(model, a_node())
    then = after(model, first).plan(Facts(inspection=inspected(an_8b()), nodes=later))
    assert then.revision == first.revision
    assert then.settled == first.settled


def test_facts_that_are_lost_later_change_nothing() -> None:
    first = plan(a_model().with_gpu(), a_node())
    assert after(a_model().with_gpu(), first).plan(UNKNOWN_FILES).revision == first.revision


def test_facts_that_come_later_change_nothing() -> None:
    first = a_model().with_gpu().plan(UNKNOWN_FILES)
    then = plan(after(a_model().with_gpu(), first), a_node())
    assert (then.revision, then.settled) == (first.revision, None)
    assert then.fits.status == "False"
    assert then.estimate is not None


def test_pods_of_an_operator_that_inspected_nothing_are_not_rolled() -> None:
    first = a_model().with_gpu().plan()
    then = plan(after(a_model().with_gpu(), first), a_node())
    assert then.revision == first.revision


def test_labels_that_shrink_make_the_verdict_false_for_what_runs() -> None:
    model = a_model().with_gpu().with_engine(contextSize="auto")
    first = plan(model, a_node())
    then = plan(after(model, first), a_node(memory_mib=8192))
    assert (first.fits.status, then.fits.status) == ("True", "False")


def test_a_change_of_the_spec_or_of_the_files_settles_anew_and_so_does_the_annotation() -> None:
    model = a_model().with_gpu()
    first = plan(model, a_node())
    larger = a_node(memory_mib=40960)
    stored = after(model, first)
    assert plan(stored, larger).settled == first.settled
    changed = plan(stored.with_engine(batchSize=1024), larger)
    assert changed.settled is not None
    assert changed.settled.context_size == 131072
    other_file = stored.plan(facts_of(an_8b(digest="e" * 64), larger))
    assert other_file.settled is not None
    assert other_file.settled.context_size == 131072
    asked = plan(stored.annotated(**{"llamamodel.dev/settle": "1"}), larger)
    assert asked.settled is not None
    assert asked.settled.context_size == 131072


@pytest.mark.parametrize("change", [{"replicas": 3}, {"suspend": True}, {"memoryPolicy": "Block"}])
def test_scaling_suspending_and_the_policy_settle_nothing_anew(change: dict[str, object]) -> None:
    model = a_model().with_gpu()
    first = plan(model, a_node())
    assert plan(after(model, first).with_spec(**change), a_node(memory_mib=40960)).revision == first.revision


# The policy Block


def test_block_holds_what_is_known_not_to_fit_and_warn_does_not() -> None:
    held, warned = plan(BLOCKED, a_node(memory_mib=8192)), plan(SMALL, a_node(memory_mib=8192))
    assert deployment(held)["spec"]["replicas"] == 0
    assert held.hold.startswith("no pod is started, since spec.memoryPolicy is Block: needs 9.2Gi per GPU")
    assert deployment(warned)["spec"]["replicas"] == 1
    assert not warned.hold


@pytest.mark.parametrize("nodes", [[], [a_node(memory_mib=None)], [a_node(gpu_replicas="2")], [a_node()]])
def test_block_holds_nothing_that_is_not_known_to_be_too_large(nodes: list[NodeGpus]) -> None:
    assert not plan(BLOCKED, *nodes).hold


def test_block_holds_nothing_where_no_node_matches_whatever_the_spec_says_of_gpus() -> None:
    model = BLOCKED.with_spec(gpu={"memory": "8Gi"})
    assert plan(model).fits.status == "False"
    assert not plan(model).hold
    assert plan(model, a_node(memory_mib=None)).hold


def test_what_is_held_starts_by_itself_when_the_label_says_more() -> None:
    held = after(BLOCKED, plan(BLOCKED, a_node(memory_mib=8192)))
    released = plan(held, a_node())
    assert not released.hold
    assert deployment(released)["spec"]["replicas"] == 1
    assert released.settled is not None
    assert released.settled.gpu_layers == 33


def test_block_never_touches_what_runs() -> None:
    first = plan(BLOCKED, a_node())
    then = plan(after(BLOCKED, first), a_node(memory_mib=8192), running=True, running_revision=first.revision)
    assert then.fits.status == "False"
    assert not then.hold
    assert deployment(then)["spec"]["replicas"] == 1
    assert then.will_not_start is None


def test_while_an_earlier_spec_serves_the_one_that_does_not_fit_is_held_back() -> None:
    then = plan(BLOCKED, a_node(memory_mib=8192), running=True, running_revision="earlier")
    assert then.will_not_start == then.hold != ""


def test_nothing_needs_to_be_held_that_is_suspended() -> None:
    assert not plan(BLOCKED.suspended(), a_node(memory_mib=8192)).hold


def test_what_is_held_has_settled_nothing() -> None:
    status = after(BLOCKED, plan(BLOCKED, a_node(memory_mib=8192))).status
    assert "settledFor" not in status["engine"]
    assert "settled" not in status["engine"]


# The status


def test_the_status_says_what_is_taken_by_what_and_what_there_is() -> None:
    status = after(SMALL, plan(SMALL, a_node())).status
    memory = status["memory"]
    (gpu,) = memory["gpus"]
    assert memory["summary"] == "9.2Gi/24Gi"
    assert memory["fits"] == "True"
    assert (memory["contextSize"], memory["gpuLayers"]) == (8192, 33)
    assert memory["maxContextSize"] == 128768
    assert gpu["kvCache"] == "1024Mi"
    assert gpu["available"] == "24576Mi"
    assert gpu["overhead"] == "640Mi"
    assert "adapters" not in gpu
    assert status["model"]["summary"] == "llama/Q8_0"
    assert status["model"]["parameters"] == 8030261248
    assert status["model"]["chatTemplate"] == "absent"
    assert status["engine"]["settled"]["gpuLayers"] == 33


@pytest.mark.parametrize(
    ("nodes", "summary"),
    [
        ((), "9.2Gi/?"),
        ((a_node(memory_mib=None),), "9.2Gi/?"),
        ((a_node(), a_node("b", memory_mib=81920)), "9.2Gi/80Gi"),
    ],
)
def test_the_printer_column_shows_estimate_and_available_memory(nodes: tuple[NodeGpus, ...], summary: str) -> None:
    assert after(SMALL, plan(SMALL, *nodes)).status["memory"]["summary"] == summary


def conditions(model: ModelBuilder, plan: Plan) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in after(model, plan).status["conditions"]}


@pytest.mark.parametrize(
    ("inspection", "found"),
    [
        (None, ("Unknown", "InspectionOff")),
        (inspection_off(), ("Unknown", "InspectionOff")),
        (inspected(an_8b()), ("True", "Inspected")),
    ],
)
def test_the_condition_inspected_says_what_the_inspection_does(
    inspection: Inspection | None, found: tuple[str, str]
) -> None:
    assert conditions(SMALL, SMALL.plan(Facts(inspection=inspection, nodes=(a_node(),))))["Inspected"] == found


def test_while_the_files_are_inspected_again_the_earlier_verdict_stays_and_a_changed_spec_has_none() -> None:
    stored = after(SMALL, plan(SMALL, a_node()))
    pending = Facts(inspection=not_inspected(Reason.INSPECTING, "Job x reads", key="1"), nodes=(a_node(),))

    def again(model: ModelBuilder) -> Mapping[str, Any]:
        observed = Observed(deployment=None, left_alone=True)
        return make_status(model.build(), plan=model.plan(pending), observed=observed, now=NOON).to_wire()

    def fits(status: Mapping[str, Any]) -> list[Any]:
        return [c for c in status["conditions"] if c["type"] == "MemoryFits"]

    status = again(stored)
    assert fits(status) == fits(stored.status)
    assert fits(again(stored.with_status(status))) == fits(stored.status)
    assert (status["memory"], status["model"]) == (stored.status["memory"], stored.status["model"])
    assert fits(again(stored.with_engine(contextSize=4096)))[0]["reason"] == "NotEstimated"
    assert fits(again(SMALL))[0]["reason"] == "NotEstimated"


def test_ready_says_that_block_holds_it() -> None:
    found = conditions(BLOCKED, plan(BLOCKED, a_node(memory_mib=8192)))
    assert found["Ready"] == found["MemoryFits"] == ("False", "MemoryTooSmall")
    assert found["Accepted"][0] == "True"


# Texts


TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
PROMPTED = SMALL.with_spec(systemPrompt={"inline": "Be brief."})


def with_template(text: str = TEMPLATE) -> Facts:
    return replace(facts_of(an_8b(chat_template=text), a_node()), template=examine_template(text))


def test_the_system_prompt_goes_into_the_ggufs_own_chat_template() -> None:
    found = PROMPTED.plan(with_template())
    (texts,) = (child for child in found.objects if child["kind"] == "ConfigMap")
    assert "Be brief." in texts["data"]["chat-template.jinja"]
    assert arguments(found, "--chat-template-file") == ["/etc/llamamodel/chat-template.jinja"]
    assert FindingCode.SYSTEM_PROMPT_UNUSED not in [finding.code for finding in found.findings]


def test_without_a_system_prompt_the_ggufs_own_chat_template_is_left_to_llama_server() -> None:
    assert arguments(SMALL.plan(with_template()), "--chat-template-file") == [None]


def test_a_gguf_without_a_chat_template_takes_no_system_prompt_and_that_is_said() -> None:
    found = plan(PROMPTED, a_node())
    (finding,) = (finding for finding in found.findings if finding.code is FindingCode.SYSTEM_PROMPT_UNUSED)
    assert finding.message.startswith("the GGUF has no chat template")


def test_a_chat_template_that_becomes_known_later_rolls_no_pod() -> None:
    first = PROMPTED.plan(UNKNOWN_FILES)
    assert after(PROMPTED, first).plan(with_template()).revision == first.revision


def test_while_the_file_cannot_be_inspected_any_more_what_runs_keeps_its_template() -> None:
    stored = after(PROMPTED, PROMPTED.plan(with_template()))
    assert [finding.code for finding in stored.plan(UNKNOWN_FILES).errors] == [FindingCode.TEXT_MISSING]
    assert not stored.plan().errors  # the command line and the webhook do not know
    assert not PROMPTED.plan(UNKNOWN_FILES).errors


@pytest.mark.parametrize(
    ("size", "shown"), [(1, "1Mi"), (512 << 20, "512Mi"), (GIB, "1Gi"), (GIB + 1, "1.1Gi"), (24 * GIB, "24Gi")]
)
def test_sizes_are_rounded_up(size: int, shown: str) -> None:
    assert shown_size(size) == shown


# At admission


def test_a_review_that_knows_the_files_and_the_nodes_warns_of_what_does_not_fit() -> None:
    model = SMALL.with_engine(gpuLayers="all")

    def codes(know: Know | None) -> list[FindingCode]:
        found = review_manifest(
            model.raw(), configuration=CONFIGURATION, look_up=nobody_looks, examine=examine_template, know=know
        )
        return [finding.code for finding in found.findings if finding.severity is Severity.WARNING]

    assert codes(lambda _: (inspected(an_8b()), (a_node(memory_mib=8192),))) == [FindingCode.MEMORY_TOO_SMALL]
    assert codes(lambda _: (inspected(an_8b()), (a_node(),))) == []
    assert codes(None) == []
