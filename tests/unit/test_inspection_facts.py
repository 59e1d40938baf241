"""What is kept of an inspection, and what the operator takes from others: documents, ConfigMaps, Deployments."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.inspection import (
    LONGEST_DOCUMENT_BYTES,
    InvalidDocumentError,
    Verdict,
    document_of,
    files_of,
    inspection_key,
    models_of_document,
)
from llamamodel_operator.core.objects.check import Check, build_check, check_of
from llamamodel_operator.core.objects.facts import TooManyFactsError, build_facts, inspection_of_facts
from llamamodel_operator.core.objects.job import job_name
from llamamodel_operator.shell.gguf_files import open_model
from support.gguf import layer_tensors, llama_metadata, write_gguf

from .builders import ModelBuilder, a_model

FILES = files_of(a_model().build().spec)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> GgufModel:
    path = tmp_path_factory.mktemp("models") / "a.gguf"
    return open_model(write_gguf(path, metadata=llama_metadata(), tensors=layer_tensors()))


def facts(gguf: GgufModel) -> dict[str, Any]:
    document = document_of([(FILES[0], gguf)])
    return build_facts(a_model().build(), key="k", digest="d", time="2026-01-01T12:00:00Z", document=document)


def test_facts_are_the_same_after_they_were_kept(gguf: GgufModel) -> None:
    kept = inspection_of_facts(facts(gguf), files=FILES, key="k")
    assert kept.model == gguf
    assert (kept.key, kept.time) == ("k", "2026-01-01T12:00:00Z")
    assert len(kept.digest) == 16


def test_facts_of_other_files_are_refused(gguf: GgufModel) -> None:
    both = files_of(a_model().with_spec(projector={"pvc": {"claimName": "m", "path": "p.gguf"}}).build().spec)
    with pytest.raises(InvalidDocumentError, match=r"it is about .*, expected"):
        inspection_of_facts(facts(gguf), files=both, key="k")


def test_a_bomb_is_not_unpacked(gguf: GgufModel) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(bytes(100 * LONGEST_DOCUMENT_BYTES // 8)) + packer.flush()
    raw = {**facts(gguf), "binaryData": {"facts.json.gz": base64.b64encode(packed).decode()}}
    with pytest.raises(InvalidDocumentError, match="at most"):
        inspection_of_facts(raw, files=FILES, key="k")


def test_facts_that_no_config_map_holds_are_too_many() -> None:
    text = b"".join(str(number * 7919 % 1_000_003).encode() for number in range(1_000_000))
    with pytest.raises(TooManyFactsError):
        build_facts(a_model().build(), key="k", digest="d", time="t", document=text)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_text_is_no_document(text: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        models_of_document(text, files=FILES)


@given(part=JSON, place=st.sampled_from(["version", "bigEndian", "parts", "metadata", "lengths", "tensors"]))
def test_a_document_with_anything_in_a_place_of_it_is_taken_or_refused(part: Any, place: str) -> None:
    document = {
        "version": 3,
        "bigEndian": False,
        "parts": [["a.gguf", 100, 50, "00"]],
        "metadata": {"general.architecture": "llama"},
        "lengths": {"a": 3},
        "tensors": [["a", 0, [1, 2], 8]],
    }
    said = {"version": 1, "files": [{"role": "model", "field": "spec.model.pvc", "facts": {**document, place: part}}]}
    try:
        (model,) = models_of_document(json.dumps(said).encode(), files=FILES)
    except InvalidDocumentError:
        return
    assert all(isinstance(tensor.size, int) and isinstance(tensor.name, str) for tensor in model.tensors)
    assert all(0 <= part.size < 2**63 for part in model.parts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": float("inf")},
        {"parts": [["a.gguf", 100, 50, "\ud800"]]},
        {"metadata": {"general.name": "\ud800"}},
        {"tensors": [["a", 0, [2**62] * 5, 8]]},
    ],
)
def test_what_could_not_be_written_or_counted_is_no_document(wrong: dict[str, Any]) -> None:
    facts = {
        **{"version": 3, "bigEndian": False, "parts": [["a.gguf", 100, 50, "00"]]},
        **{"metadata": {}, "lengths": {}, "tensors": []},
        **wrong,
    }
    said = {"version": 1, "files": [{"role": "model", "field": "spec.model.pvc", "facts": facts}]}
    with pytest.raises(InvalidDocumentError):
        models_of_document(json.dumps(said).encode(), files=FILES)


def test_a_verdict_with_half_a_surrogate_can_be_written() -> None:
    verdict = Verdict.parse('{"reason": "NotGGUF", "message": "\\ud800"}')
    assert verdict is not None
    verdict.message.encode()


def test_nesting_without_an_end_is_no_document() -> None:
    with pytest.raises(InvalidDocumentError):
        models_of_document(b"[" * 100_000, files=FILES)


def key_of(model: ModelBuilder, asked: str = "") -> str:
    return inspection_key(files_of(model.build().spec), asked=asked)


def test_an_inspection_is_named_by_its_files_and_by_who_asks_for_it() -> None:
    base = a_model()
    adapter = {"name": "a", "pvc": {"claimName": "models", "path": "a.gguf"}}
    keys = [
        key_of(base),
        key_of(base, asked="again"),
        key_of(base.reading("models", "b.gguf")),
        key_of(base.reading("other", "gemma/gemma-3-270m.gguf")),
        key_of(base.with_spec(loraAdapters=[adapter])),
        key_of(base.with_spec(projector={"pvc": adapter["pvc"]})),
        key_of(
            base.with_spec(
                model={"pvc": {"claimName": "models", "path": "gemma/gemma-3-270m.gguf", "sha256": "0" * 64}}
            )
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(base.with_gpu().with_engine(contextSize=2048).with_replicas(0)) == key_of(base)
    scaled = [{**adapter, "scale": 0.5}]
    assert key_of(base.with_spec(loraAdapters=scaled)) == key_of(base.with_spec(loraAdapters=[adapter]))


def test_names_of_jobs_are_short_enough_and_their_own() -> None:
    names = {job_name(a_model().named(name).build(), "0123456789") for name in ("a", "b" * 63, "b" * 62 + "c", "x.y")}
    assert len(names) == 4
    assert all(len(name) <= 63 and name.endswith("-inspect-0123456789") for name in names)


CHECK = Check(image="example.com/operator:1", arguments=("--expect", "d", "--files", "[]"), digest="d")


@pytest.mark.parametrize(
    ("server", "limits", "requests"),
    [
        ({}, {"memory": "256Mi"}, {"cpu": "10m", "memory": "64Mi"}),
        ({"limits": {"memory": "8Gi"}}, {"memory": "256Mi"}, {"cpu": "10m", "memory": "64Mi"}),
        ({"limits": {"cpu": "2"}}, {"cpu": "2", "memory": "256Mi"}, {"cpu": "10m", "memory": "64Mi"}),
        (
            {"limits": {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
            {"cpu": "2", "memory": "8Gi"},
            {"cpu": "2", "memory": "8Gi"},
        ),
        (
            {"limits": {"cpu": "2", "memory": "8Gi"}, "requests": {"cpu": "1"}},
            {"cpu": "2", "memory": "256Mi"},
            {"cpu": "10m", "memory": "64Mi"},
        ),
    ],
    ids=["nothing", "memory", "a quota on CPU", "guaranteed", "burstable"],
)
def test_the_check_changes_neither_the_pods_quality_of_service_nor_what_it_takes(
    server: dict[str, Any], limits: dict[str, str], requests: dict[str, str]
) -> None:
    built = build_check(CHECK, mounts=[], security={}, server=server)
    assert built["resources"] == {"limits": limits, "requests": requests}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        (None, None),
        ([], None),
        ([{"name": "istio-init", "args": ["--expect", "x"]}], None),
        ([{"name": "check-files", "image": CHECK.image, "args": list(CHECK.arguments)}], CHECK),
        ([{"name": "check-files"}], Check(image="", arguments=())),
        ([{"name": "check-files", "args": ["--expect"]}], Check(image="", arguments=("--expect",))),
    ],
)
def test_what_pods_begin_with_is_read_from_their_template(containers: Any, expected: Check | None) -> None:
    assert check_of({"spec": {"template": {"spec": {"initContainers": containers}}}}) == expected


def test_links_inside_the_volume_work_as_those_of_a_cache_of_downloads_do(tmp_path: Path) -> None:
    blob = tmp_path / "models--a--b" / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    write_gguf(blob, metadata=llama_metadata(), tensors=layer_tensors())
    snapshot = tmp_path / "models--a--b" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "a.gguf").symlink_to("../../blobs/0123")
    assert open_model(snapshot / "a.gguf", inside=tmp_path).text("general.architecture") == "llama"
