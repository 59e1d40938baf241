"""GGUF files on a disk: parts, links, what is no file, and what may not be read."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
from llamamodel_operator.shell.gguf_files import open_gguf, open_model
from support.gguf import gguf_bytes, layer_tensors, llama_metadata, write_gguf, write_parts


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.gguf", metadata=llama_metadata(), tensors=layer_tensors())


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path, "model", metadata=llama_metadata(), tensors=layer_tensors(), parts=3)


def problem(path: Path | str, **options: Path) -> GgufError:
    with pytest.raises(GgufError) as caught:
        open_model(path, **options)
    return caught.value


def test_all_parts_are_found_and_their_tensors_merged(parts: list[Path]) -> None:
    found = open_model(parts[0])
    assert [part.name for part in found.parts] == [path.name for path in parts]
    assert [part.size for part in found.parts] == [path.stat().st_size for path in parts]
    assert [tensor.name for tensor in found.tensors] == [name for name, _, _ in layer_tensors()]
    assert found.metadata["llama.block_count"] == 2


def test_a_path_that_is_relative_works(parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(parts[0].parent)
    assert len(open_model(parts[0].name).parts) == 3
    assert len(open_gguf(parts[0].name).parts) == 3


def test_files_are_open_one_at_a_time(tmp_path: Path) -> None:
    files = write_parts(tmp_path, "many", metadata=llama_metadata(), tensors=layer_tensors(), parts=21)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 3, hard))
    try:
        assert len(open_model(files[0]).parts) == 21
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _remove(parts: list[Path]) -> None:
    parts[1].unlink()


def _cut(parts: list[Path]) -> None:
    os.truncate(parts[2], parts[2].stat().st_size - 1)


def _empty(parts: list[Path]) -> None:
    os.truncate(parts[1], 0)


def _swap(parts: list[Path]) -> None:
    parts[1].rename(parts[1].with_name("other"))
    parts[2].rename(parts[1])
    parts[1].with_name("other").rename(parts[2])


def _first_again(parts: list[Path]) -> None:
    parts[1].unlink()
    parts[1].symlink_to(parts[0].name)


def _of_another_count(parts: list[Path]) -> None:
    other = write_parts(parts[0].parent, "other", metadata=llama_metadata(), tensors=layer_tensors(), parts=4)
    other[1].rename(parts[1])


def _of_another_model(parts: list[Path]) -> None:
    other = write_parts(parts[0].parent, "other", metadata=llama_metadata(), tensors=layer_tensors(layers=1), parts=3)
    other[1].rename(parts[1])


def _no_part(parts: list[Path]) -> None:
    write_gguf(parts[1], metadata=llama_metadata(), tensors=layer_tensors())


def _the_same_tensors(parts: list[Path]) -> None:
    split = {"split.no": 1, "split.count": 3, "split.tensors.count": len(layer_tensors())}
    write_gguf(parts[1], metadata=split, tensors=layer_tensors()[:7])


def _another_byte_order(parts: list[Path]) -> None:
    split = {"split.no": 1, "split.count": 3, "split.tensors.count": len(layer_tensors())}
    write_gguf(parts[1], metadata=split, tensors=layer_tensors()[7:14], big_endian=True)


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (_remove, GgufProblem.PART_MISSING, "model-00002-of-00003.gguf, part 2"),
        (_cut, GgufProblem.MODEL_TRUNCATED, "model-00003-of-00003.gguf"),
        (_empty, GgufProblem.NOT_GGUF, "model-00002-of-00003.gguf, byte 0: found an empty file"),
        (_swap, GgufProblem.PART_MISMATCH, "found part 3, expected part 2"),
        (_first_again, GgufProblem.PART_MISMATCH, "found part 1, expected part 2"),
        (_of_another_count, GgufProblem.PART_MISMATCH, "found a part of 4, expected one of 3"),
        (_of_another_model, GgufProblem.PART_MISMATCH, "split.tensors.count 12, expected 21"),
        (_no_part, GgufProblem.PART_MISMATCH, "found a part of 0"),
        (_the_same_tensors, GgufProblem.PART_MISMATCH, "token_embd.weight is in two parts"),
        (_another_byte_order, GgufProblem.PART_MISMATCH, "another byte order"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_parts_that_do_not_belong_together_are_named(
    parts: list[Path], damage: Callable[[list[Path]], None], reason: GgufProblem, words: str
) -> None:
    damage(parts)
    error = problem(parts[0])
    assert error.reason is reason
    assert words in error.message


def test_another_part_than_the_first_says_which_to_name(parts: list[Path]) -> None:
    error = problem(parts[2])
    assert error.reason is GgufProblem.NOT_THE_FIRST_PART
    assert error.message == f"{parts[2]}: this is part 3 of 3, expected the first: name model-00001-of-00003.gguf"


def test_a_first_part_with_a_name_of_its_own_is_refused(parts: list[Path]) -> None:
    error = problem(parts[0].rename(parts[0].with_name("model.gguf")))
    assert error.reason is GgufProblem.PART_MISMATCH
    assert "-00001-of-00003.gguf" in error.message


@pytest.mark.parametrize("count", [-1, 1001, 65_535, "three", 1.5, [1, 2]])
def test_an_absurd_count_of_parts_is_refused(tmp_path: Path, count: int | float | str | list[int]) -> None:
    file = write_gguf(tmp_path / "model-00001-of-00003.gguf", metadata={**llama_metadata(), "split.count": count})
    assert problem(file).reason is GgufProblem.INVALID_HEADER


@pytest.mark.parametrize("count", [0, 1])
def test_one_part_is_no_part(tmp_path: Path, count: int) -> None:
    file = write_gguf(tmp_path / "model.gguf", metadata={**llama_metadata(), "split.count": count, "split.no": 0})
    assert len(open_model(file).parts) == 1


def test_tensors_that_are_missing_in_all_parts_are_counted(tmp_path: Path) -> None:
    for number in range(2):
        split = {"split.no": number, "split.count": 2, "split.tensors.count": 21}
        write_gguf(
            tmp_path / f"model-0000{number + 1}-of-00002.gguf",
            metadata=split,
            tensors=layer_tensors()[number * 7 : number * 7 + 7],
        )
    error = problem(tmp_path / "model-00001-of-00002.gguf")
    assert error.reason is GgufProblem.PART_MISMATCH
    assert "have 14 tensors, expected 21" in error.message


def test_a_folder_a_pipe_a_socket_and_a_device_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    error = problem(tmp_path / "pipe")
    assert (error.reason, "found a named pipe, expected a GGUF file" in error.message) == (GgufProblem.NOT_A_FILE, True)
    assert "found a folder" in problem(tmp_path).message
    assert "found a device" in problem("/dev/null").message
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert problem("socket").reason in (GgufProblem.UNREADABLE, GgufProblem.NOT_A_FILE)


def test_what_is_missing_is_told_with_what_is_there(model: Path, tmp_path: Path) -> None:
    error = problem(tmp_path / "modell.gguf")
    assert error.reason is GgufProblem.MODEL_FILE_NOT_FOUND
    assert error.message == f"{tmp_path}/modell.gguf: there is no such file; beside it are model.gguf"
    assert "there is no folder" in problem(tmp_path / "a" / "b.gguf").message
    assert "there is no folder" in problem(model / "b.gguf").message
    (tmp_path / "empty").mkdir()
    assert "is empty" in problem(tmp_path / "empty" / "b.gguf").message
    assert problem("a\0b").reason is GgufProblem.MODEL_FILE_NOT_FOUND
    assert problem("").reason is GgufProblem.MODEL_FILE_NOT_FOUND
    assert problem(tmp_path / ("x" * 5000)).reason is GgufProblem.MODEL_FILE_NOT_FOUND


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").symlink_to("../blobs/abc")
    assert "a link to ../blobs/abc, which does not exist" in problem(tmp_path / "broken.gguf").message
    (tmp_path / "a.gguf").symlink_to("b.gguf")
    (tmp_path / "b.gguf").symlink_to("a.gguf")
    for options in ({}, {"inside": tmp_path}):
        error = problem(tmp_path / "a.gguf", **options)
        assert error.reason is GgufProblem.MODEL_FILE_NOT_FOUND
        assert "leads back to itself" in error.message


def test_a_file_that_may_not_be_read_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.chmod(0)
    if os.access(model, os.R_OK):  # root reads everything

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    error = problem(model)
    assert error.reason is GgufProblem.PERMISSION_DENIED
    assert f"user {os.geteuid()}" in error.message


def test_an_error_of_the_disk_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    error = problem(model)
    assert (error.reason, "Input/output error" in error.message) == (GgufProblem.UNREADABLE, True)


def test_links_inside_of_the_folder_work_as_in_a_cache_of_hugging_face(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    repository = volume / "hub" / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    files = write_parts(tmp_path, "model", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    for number, file in enumerate(files):
        blob = file.rename(repository / "blobs" / f"{number:064}")
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    found = open_model(snapshot / files[0].name, inside=volume)
    assert [part.name for part in found.parts] == [file.name for file in files]
    (tmp_path / "mount").symlink_to(volume)
    inside = tmp_path / "mount"
    assert open_model(inside / "hub/models--org--name/snapshots/abc123" / files[0].name, inside=inside) == found


@pytest.mark.parametrize("absolute", [True, False])
def test_links_that_lead_out_of_the_folder_are_refused(model: Path, tmp_path: Path, absolute: bool) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "model.gguf").symlink_to(model if absolute else "../model.gguf")
    error = problem(volume / "model.gguf", inside=volume)
    assert error.reason is GgufProblem.OUTSIDE_FOLDER
    assert f"leads to {model}, outside of {volume}" in error.message
    assert problem(volume / ".." / "model.gguf", inside=volume).reason is GgufProblem.OUTSIDE_FOLDER
    assert open_model(volume / "model.gguf")


def test_a_folder_whose_name_begins_alike_is_outside(model: Path, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "volume").mkdir()
    target = model.rename(tmp_path / "volume" / "model.gguf")
    (tmp_path / "vol" / "model.gguf").symlink_to(target)
    assert problem(tmp_path / "vol" / "model.gguf", inside=tmp_path / "vol").reason is GgufProblem.OUTSIDE_FOLDER


def test_a_part_that_is_a_link_out_of_the_folder_is_refused(parts: list[Path], tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    first = parts[0].rename(volume / parts[0].name)
    (volume / parts[1].name).symlink_to(parts[1])
    assert problem(first, inside=volume).reason is GgufProblem.OUTSIDE_FOLDER


def test_nothing_of_a_file_can_steer_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[2J\n.gguf"
    header, _ = gguf_bytes(metadata={"\x1b]0;x\x07": 1, "\x1b]0;x\x08": 1})
    file.write_bytes(header.replace(b"\x08", b"\x07"))
    error = problem(file)
    assert (error.reason, error.message.isprintable()) == (GgufProblem.INVALID_HEADER, True)
