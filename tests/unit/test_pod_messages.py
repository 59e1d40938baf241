"""What Kubernetes says of pods that do not come up, in our reasons. The texts are Kubernetes' own."""

from __future__ import annotations

from typing import Any

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.pod_messages import (
    image_trouble,
    is_mere_back_off,
    refusal_reason,
    scheduling_advice,
    trouble_of_events,
)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
            Reason.QUOTA_EXCEEDED,
        ),
        ('pods "x" is forbidden: failed quota: q: must specify limits.memory', Reason.QUOTA_EXCEEDED),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            Reason.POD_SECURITY_VIOLATION,
        ),
        (
            'pods "x" is forbidden: unable to validate against any security context constraint: []',
            Reason.POD_SECURITY_VIOLATION,
        ),
        ('admission webhook "policy.example.com" denied the request: no', Reason.ADMISSION_DENIED),
        (
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            Reason.ADMISSION_DENIED,
        ),
        (
            'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
            Reason.ADMISSION_DENIED,
        ),
        ('Internal error occurred: failed calling webhook "w": connection refused', Reason.OBJECT_REFUSED),
        ('error looking up service account demo/x: serviceaccount "x" not found', Reason.OBJECT_REFUSED),
    ],
)
def test_a_refusal_has_the_reason_that_its_words_give(message: str, reason: Reason) -> None:
    assert refusal_reason(message, otherwise=Reason.OBJECT_REFUSED) is reason


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", ["nvidia.com/gpu, or lower spec.gpu.count"]),
        (
            "0/2 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {gpu: true}."
            " preemption: 0/2"
            " nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.",
            ["spec.resources.requests.memory", "spec.tolerations"],
        ),
        ("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.", ["spec.nodeSelector"]),
        ("0/1 nodes are available: 1 node(s) had volume node affinity conflict.", ["other nodes alone"]),
        (
            "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and"
            " ReadWriteOncePod"
            " access mode.",
            ["ReadWriteMany"],
        ),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", ["uncordon"]),
        ("0/1 nodes are available: 1 something new.", []),
    ],
)
def test_the_schedulers_words_say_what_is_short(message: str, words: list[str]) -> None:
    advice = scheduling_advice(message)
    assert len(advice) == len(words)
    assert all(word in said for word, said in zip(words, advice, strict=True))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'failed to pull and unpack image "docker.io/library/x:9": failed to resolve reference'
            ' "docker.io/library/x:9": docker.io/library/x:9: not found',
            Reason.IMAGE_NOT_FOUND,
        ),
        ("reading manifest 9 in example.com/x: manifest unknown", Reason.IMAGE_NOT_FOUND),
        (
            "pull access denied, repository does not exist or may require authorization: server message:"
            " insufficient_scope: authorization failed",
            Reason.IMAGE_PULL_DENIED,
        ),
        (
            "unexpected status from HEAD request to https://example.com/v2/x/manifests/1: 403 Forbidden",
            Reason.IMAGE_PULL_DENIED,
        ),
        ("failed to do request: dial tcp 127.0.0.1:443: connect: connection refused", Reason.IMAGE_PULL_FAILED),
    ],
)
def test_an_image_that_is_not_there_is_told_from_one_that_may_not_be_pulled(message: str, reason: Reason) -> None:
    trouble = image_trouble("ErrImagePull", message)
    assert (trouble.reason, trouble.message) == (reason, message)
    assert "spec.image" in trouble.remedy


def test_a_back_off_that_says_why_is_no_mere_one() -> None:
    assert is_mere_back_off('Back-off pulling image "x:1"')
    assert not is_mere_back_off('Back-off pulling image "x:1": ErrImagePull: not found')


def event(reason: str, message: str, time: str = "2026-01-01T12:00:00Z") -> dict[str, Any]:
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": time}


MULTI = 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node'
MOUNT = 'MountVolume.SetUp failed for volume "model" : mount failed: exit status 32'
WAITS = "Unable to attach or mount volumes: unmounted volumes=[model]: timed out waiting for the condition"


@pytest.mark.parametrize(
    ("events", "reason", "message"),
    [
        ([event("FailedMount", WAITS), event("FailedAttachVolume", MULTI)], Reason.MULTI_ATTACH, MULTI),
        ([event("FailedMount", WAITS), event("FailedMount", MOUNT)], Reason.VOLUME_MOUNT_FAILED, MOUNT),
        ([event("FailedMount", WAITS)], Reason.VOLUME_MOUNT_FAILED, WAITS),
        ([event("FailedAttachVolume", "rpc error")], Reason.VOLUME_MOUNT_FAILED, "rpc error"),
        (
            [event("FailedMount", MOUNT), event("FailedMount", f"{MOUNT} again", "2026-01-01T12:01:00Z")],
            Reason.VOLUME_MOUNT_FAILED,
            f"{MOUNT} again",
        ),
        ([event("FailedCreatePodSandBox", "plugin\n failed")], Reason.CONTAINER_CONFIG_ERROR, "plugin failed"),
    ],
)
def test_events_say_why_containers_are_not_started(events: list[dict[str, Any]], reason: Reason, message: str) -> None:
    for order in (events, events[::-1]):
        trouble = trouble_of_events(order)
        assert trouble is not None
        assert (trouble.reason, trouble.message) == (reason, message)


def test_other_events_say_nothing() -> None:
    assert trouble_of_events([]) is None
    assert trouble_of_events([event("Unhealthy", "probe failed"), {"reason": "FailedScheduling"}]) is None
