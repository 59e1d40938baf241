"""Files are looked at before a GPU is taken, by a real Job on a real volume; and again when a pod starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import OPERATOR_USER, Environment, pod_of, serve, served
from support.gguf import layer_tensors, llama_metadata, write_adapter, write_gguf, write_parts, write_projector
from support.kube import Kube, condition, eventually, llama_model

pytestmark = pytest.mark.e2e

GEMMA = "gemma-3-270m-Q4_K_M.gguf"


@pytest.fixture(scope="module")
def folder(environment: Environment) -> Iterator[Path]:
    """A folder on the volume for the files of these tests."""
    path = environment.models_dir / "inspection"
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def claim(path: str, **more: str) -> dict[str, Any]:
    return {"pvc": {"claimName": "models", "path": f"inspection/{path}", **more}}


def missing(_: Path) -> dict[str, Any]:
    return {"model": claim("no-such.gguf")}


def truncated(folder: Path) -> dict[str, Any]:
    file = write_gguf(folder / "cut.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    with file.open("rb+") as stream:
        stream.truncate(file.stat().st_size // 2)
    return {"model": claim("cut.gguf")}


def a_missing_part(folder: Path) -> dict[str, Any]:
    parts = write_parts(folder, "split", metadata=llama_metadata(), tensors=layer_tensors(), parts=3)
    parts[2].unlink()
    return {"model": claim(parts[0].name)}


def another_base(folder: Path) -> dict[str, Any]:
    write_gguf(folder / "base.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    write_adapter(folder / "sql.gguf", targets={"blk.0.attn_q.weight": (128, 128)})
    return {"model": claim("base.gguf"), "loraAdapters": [{"name": "sql", **claim("sql.gguf")}]}


def another_projector(folder: Path) -> dict[str, Any]:
    write_gguf(folder / "base.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    write_projector(folder / "mmproj.gguf", embedding=96)
    return {"model": claim("base.gguf"), "projector": claim("mmproj.gguf")}


def unreadable(folder: Path) -> dict[str, Any]:
    write_gguf(folder / "mine.gguf", metadata=llama_metadata(), tensors=layer_tensors()).chmod(0o600)
    return {"model": claim("mine.gguf")}


def another_checksum(folder: Path) -> dict[str, Any]:
    write_gguf(folder / "sum.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    return {"model": claim("sum.gguf", sha256="0" * 64)}


BAD: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ModelFileNotFound": missing,
    "ModelTruncated": truncated,
    "PartMissing": a_missing_part,
    "AdapterIncompatible": another_base,
    "ProjectorIncompatible": another_projector,
    "PermissionDenied": unreadable,
    "ChecksumMismatch": another_checksum,
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_file_has_its_own_reason_and_takes_no_gpu(reason: str, kube: Kube, folder: Path) -> None:
    name = reason.lower()
    kube.apply(llama_model(name, gpu={"count": 1}, **BAD[reason](folder)))

    def found() -> dict[str, Any]:
        model = kube.must_get("lm", name)
        assert condition(model, "Inspected").get("reason") == reason
        return model

    model = eventually(found, within=60)
    ready = condition(model, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert "spec." in ready["message"]
    assert model["status"]["phase"] == "Failed"
    assert kube.select("pods", f"llamamodel.dev/model={name}") == []
    assert kube.get("deployment", name) is None
    kube.delete("llamamodel", name)


def test_a_file_that_comes_later_is_found(kube: Kube, folder: Path, environment: Environment) -> None:
    kube.apply(llama_model("later", model=claim("later.gguf")))
    eventually(lambda: condition(kube.must_get("lm", "later"), "Ready")["reason"] == "ModelFileNotFound", within=60)
    shutil.copy(environment.models_dir / GEMMA, folder / ".later")
    (folder / ".later").rename(folder / "later.gguf")
    served(kube, "later")
    assert not kube.select("jobs", "llamamodel.dev/model=later")
    kube.delete("llamamodel", "later")


@pytest.mark.usefixtures("audited")
def test_a_restart_of_the_operator_creates_no_job(kube: Kube, environment: Environment) -> None:
    model = serve(kube, llama_model("steady"))
    assert condition(model, "Inspected")["status"] == "True"
    before = pod_of(kube, "steady")
    environment.scale_operator(0)
    audit = environment.audit()
    environment.scale_operator(1)
    kube.patch("lm", "steady", {"metadata": {"labels": {"seen": "true"}}})
    eventually(lambda: environment.leader() != "", within=60)
    written = [write for write in audit.writes(user=OPERATOR_USER) if write.namespace == kube.namespace]
    assert [write for write in written if write.resource == "jobs"] == []
    after = pod_of(kube, "steady")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    kube.delete("llamamodel", "steady")


def test_a_file_that_is_replaced_is_caught_at_the_next_start_of_a_pod(
    kube: Kube, folder: Path, environment: Environment
) -> None:
    file = folder / "swapped.gguf"
    shutil.copy(environment.models_dir / GEMMA, file)
    serve(kube, llama_model("swapped", model=claim("swapped.gguf")))
    first = pod_of(kube, "swapped")
    shutil.copy(file, folder / ".new")
    with (folder / ".new").open("ab") as stream:
        stream.write(bytes(4096))
    (folder / ".new").rename(file)
    kube.delete("pod", first["metadata"]["name"])

    def caught() -> bool:
        events = kube.select("events")
        return any(
            event.get("reason") == "ModelFileChanged" and event["involvedObject"]["name"] == "swapped"
            for event in events
        )

    eventually(caught, within=60)
    served(kube, "swapped")
    before, *_ = first["spec"]["initContainers"]
    after, *_ = pod_of(kube, "swapped")["spec"]["initContainers"]
    assert after["args"] != before["args"]
    kube.delete("llamamodel", "swapped")
