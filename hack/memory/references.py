"""Makes tests/gold/architectures.json: what llama.cpp itself says that models of many architectures take.

    hack/uv run python hack/memory/references.py --lister list_tensors --tool memory_reference \\
        --libraries FOLDER --ports 50052,50053 [NAME ...]

`list_tensors.cpp` here and `memory_reference` (tests/gold/README.md) are linked with llama.cpp's libraries in FOLDER; a
`ggml-rpc-server -H 127.0.0.1 -p PORT` has to run for each port, as a stand-in for a GPU. For each model of
`published.py` the lister says which tensors llama.cpp loads; a sparse file with these tensors is written (metadata,
and a hole instead of data), and the tool is run with it at several settings. Names given are measured anew, the rest is
kept as it is; without names all are measured. `--again FILE` measures the cases of a file of that form, such as
tests/gold/settings.json, from the headers and arguments in it; `--lister` is not needed then.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from hack.memory.published import MODELS, Published  # noqa: E402

OUT = ROOT / "tests/gold/architectures.json"
ALIGNMENT = 32
ALWAYS_FLOAT = re.compile(
    r"norm|ffn_gate_inp|ssm_conv1d|ssm_a|ssm_d\b|ssm_[abc]_|shortconv\.conv|time_mix_(first|decay|lerp)|altup"
)
OPTIONAL = re.compile(r"\.(scale|input_scale)$|^rope_factors")
Listed = tuple[str, str, tuple[int, ...]]


def metadata_of(model: Published, name: str) -> dict[str, Any]:
    """Keys of the GGUF; there is no tokenizer."""
    own = {f"{model.architecture}.{key}": value for key, value in model.metadata.items()}
    return {
        "general.architecture": model.architecture,
        "general.name": name,
        "general.file_type": 15,
        "tokenizer.ggml.model": "no_vocab",
        **own,
        **model.extra,
    }


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _scalar(value: bool | int | float | str) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _string(value)


def _key(key: str, value: Any) -> bytes:
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [_scalar(item) for item in value]
        data = b"".join(item for _, item in items)
        return _string(key) + struct.pack("<IIQ", 9, items[0][0], len(items)) + data
    kind, data = _scalar(value)
    return _string(key) + struct.pack("<I", kind) + data


def write_sparse(path: Path, metadata: Mapping[str, Any], tensors: Sequence[Listed]) -> None:
    """A GGUF with a hole where the data would be."""
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        header += _key(key, value)
    offset = 0
    for name, kind, shape in tensors:
        quantization = GGMLQuantizationType[kind]
        header += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, quantization.value, offset)
        block, size = GGML_QUANT_SIZES[quantization]
        elements = 1
        for dimension in shape:
            elements *= dimension
        offset += -(-elements // block * size // ALIGNMENT) * ALIGNMENT
    header += b"\0" * (-len(header) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)


def type_of(name: str, shape: tuple[int, ...], tied: bool) -> str:
    """About what llama-quantize makes of it in a Q4_K_M file."""
    if len(shape) == 1 or name.endswith(".bias") or ALWAYS_FLOAT.search(name):
        return "F32"
    better = "attn_v." in name or "ffn_down" in name or name == "output.weight" or (tied and "token_embd." in name)
    if shape[0] % 256:
        return "Q8_0" if shape[0] % 32 == 0 else "F16"
    return "Q6_K" if better else "Q4_K"


def list_tensors(
    model: Published, metadata: Mapping[str, Any], lister: str, env: Mapping[str, str], folder: Path
) -> list[Listed]:
    """The tensors that are in the file of such a model."""
    path = folder / "metadata.gguf"
    write_sparse(path, metadata, [])
    done = subprocess.run([lister, str(path)], capture_output=True, text=True, env=dict(env), check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-600:] or f"the lister ended with {done.returncode}")
    found: dict[str, Listed] = {}
    for line in done.stdout.splitlines():
        name, dimensions = line.split("\t")
        shape = tuple(int(dimension) for dimension in dimensions.split(","))
        if OPTIONAL.search(name) or re.search(model.without, name) or (model.tied and name.startswith("output.")):
            continue
        if name.endswith(".bias") and not re.search(model.biases, name):
            continue
        found.setdefault(name, (name, type_of(name, shape, model.tied), shape))
    return list(found.values())


def settings_of(model: Published) -> Iterator[tuple[int, list[str]]]:
    """(GPUs, llama-server's arguments) to be measured."""
    layers, context = (int(str(model.metadata[key])) for key in ("block_count", "context_length"))
    if model.encoder:
        for extra in ([], ["-ub", "256", "-np", "4"], ["--pooling", "none"], ["-fa", "off"]):
            yield 1, ["-c", str(min(context, 2048)), "-np", "1", "-ngl", "99", "--embeddings", *extra]
        yield 2, ["-c", str(min(context, 2048)), "-ngl", "99", "-ts", "1,1", "--embeddings"]
        return
    yield 1, ["-c", "8192", "-np", "1", "-ngl", "99"]
    yield 1, ["-c", "32768", "-ngl", "99"]
    yield 1, ["-c", "8192", "-np", "2", "-ngl", "99", "-fa", "off"]
    yield 1, ["-c", "16384", "-np", "4", "-ngl", "99", "-ub", "256"]
    yield 1, ["-c", "8192", "-np", "1", "-ngl", str(layers // 2)]
    yield 2, ["-c", "16384", "-np", "2", "-ngl", "99", "-ts", "1,1"]
    yield 1, ["-c", "4096", "-np", "2", "-ngl", "99", "--embeddings", "--pooling", "mean"]
    if "expert_count" in model.metadata:
        yield 1, ["-c", "8192", "-np", "1", "-ngl", "99", "-cmoe"]


def measure(
    tool: str, path: Path, gpus: int, arguments: Sequence[str], ports: Sequence[str], env: Mapping[str, str]
) -> Any:
    """Rows of the tool."""
    servers = ",".join(f"127.0.0.1:{port}" for port in ports[:gpus])
    command = [tool, "--rpc", servers, "-m", str(path), *arguments, "-fit", "off"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(env), check=False, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"devices"')]
    if done.returncode or not lines:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if " E " in line or "rror" in line]
        raise RuntimeError(" | ".join(errors[-3:]) or f"the tool ended with {done.returncode}")
    rows = json.loads(lines[0])["devices"]
    return [{**row, "name": row["name"].replace("RPC", "gpu")} for row in rows]


def compact(tensors: Sequence[Listed]) -> list[list[Any]]:
    """Tensors that are alike in several blocks as one row: name with a *, type, shape, blocks."""
    rows: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    for name, kind, shape in tensors:
        match = re.fullmatch(r"((?:\w+\.)?blk\.)(\d+)(\..*)", name)
        pattern, block = (f"{match[1]}*{match[3]}", [int(match[2])]) if match else (name, [])
        rows.setdefault((pattern, kind, shape), []).extend(block)
    return [[name, kind, list(shape), blocks] for (name, kind, shape), blocks in rows.items()]


def listed(rows: Sequence[Sequence[Any]]) -> list[Listed]:
    """What `compact` was given."""
    return [
        (name.replace("*", str(block), 1), kind, tuple(shape))
        for name, kind, shape, blocks in rows
        for block in blocks or [""]
    ]


def measured_again(document: Mapping[str, Any], options: argparse.Namespace, env: Mapping[str, str]) -> dict[str, Any]:
    """The same cases with the figures of the tool."""
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in document["models"].items():
            path = Path(folder) / f"{name}.gguf"
            write_sparse(path, model["metadata"], listed(model["tensors"]))
            for case in (case for case in document["cases"] if case["model"] == name):
                rows = measure(options.tool, path, case["gpus"], case["args"], options.ports.split(","), env)
                cases.append({**case, "devices": rows})
            path.unlink()
            print(name, flush=True)
    return {**document, "cases": cases}


def write(document: Mapping[str, Any], out: Path = OUT) -> None:
    """A line for each tensor row and each case, so that a diff can be read."""
    lines = ['{"models": {']
    for number, (name, model) in enumerate(document["models"].items()):
        lines.append(f'{json.dumps(name)}: {{"metadata": {json.dumps(model["metadata"])},')
        rows = ",\n".join("  " + json.dumps(row) for row in model["tensors"])
        lines.append(f' "tensors": [\n{rows}\n ]}}' + ("," if number + 1 < len(document["models"]) else ""))
    lines += ["},", '"cases": [', ",\n".join(json.dumps(case) for case in document["cases"]), "]}"]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--tool", "--libraries", "--ports"):
        parser.add_argument(option, required=True)
    parser.add_argument("--lister", default="list_tensors")
    parser.add_argument("--again", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    env = {**os.environ, "LD_LIBRARY_PATH": options.libraries}
    if options.again:
        write(measured_again(json.loads(options.again.read_text(encoding="utf-8")), options, env), options.again)
        return 0
    document: dict[str, Any] = {"models": {}, "cases": []}
    if OUT.exists():
        document = json.loads(OUT.read_text(encoding="utf-8"))
    failed = 0
    for name in options.names or MODELS:
        model = MODELS[name]
        metadata = metadata_of(model, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.gguf"
            try:
                tensors = list_tensors(model, metadata, options.lister, env, Path(folder))
                write_sparse(path, metadata, tensors)
                cases = []
                for gpus, arguments in settings_of(model):
                    try:
                        rows = measure(options.tool, path, gpus, arguments, options.ports.split(","), env)
                    except RuntimeError as error:
                        print(f"{name} {' '.join(arguments)}: {error}", file=sys.stderr)
                        continue
                    cases.append({"model": name, "args": arguments, "gpus": gpus, "devices": rows})
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"{name}: {error}", file=sys.stderr)
                continue
        if not cases:
            failed += 1
            continue
        document["models"][name] = {"metadata": metadata, "tensors": compact(tensors)}
        document["cases"] = [case for case in document["cases"] if case["model"] != name] + cases
        write(document)
        print(f"{name}: {len(tensors)} tensors, {len(cases)} cases", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
