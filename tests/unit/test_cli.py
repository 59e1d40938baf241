"""The command line: what it prints, with which exit code; golden files show every change of it in review."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamamodel_operator.api.crd import custom_resource_definition
from llamamodel_operator.cli.checking import Checker
from llamamodel_operator.cli.configuration import BadConfigurationError, read_configuration
from llamamodel_operator.cli.documents import Document
from llamamodel_operator.cli.main import run
from llamamodel_operator.cli.manifests import MAX_BYTES, Manifest
from llamamodel_operator.core.text.template import TemplateReport

GOLDEN = Path(__file__).parent / "golden" / "cli"

GOOD = """\
apiVersion: llamamodel.dev/v1alpha1
kind: LlamaModel
metadata:
  name: qwen3
  namespace: team-a
spec:
  model:
    pvc: {claimName: models, path: qwen3/Qwen3-8B-Q4_K_M.gguf}
  image: example.com/llama.cpp:server-cuda-b10434
  gpu: {count: 1}
  engine:
    contextSize: 8192
    gpuLayers: all
"""

BAD = """\
# what people write
apiVersion: llamamodel.dev/v1alpha1
kind: LlamaModel
metadata:
  name: gemma
spec:
  model:
    pvc: {claimName: models, path: gemma.gguf}
  image: example.com/llama.cpp:server-b11669
  engine:
    ctxSize: 4096
    gpuLayers: many
  tolerations:
    - key: nvidia.com/gpu
      effect: Noschedule
"""

FLAGS = """\
apiVersion: llamamodel.dev/v1alpha1
kind: LlamaModel
metadata: {name: flags}
spec:
  model: {pvc: {claimName: models, path: m.gguf}}
  image: example.com/llama.cpp:server-b10434
  env:
    - {name: MY_API_KEY, value: hunter2}
  extraArgs:
    - --flash-atten
    - "on"
    - --api-key
    - hunter2
"""

TEMPLATED = """\
apiVersion: llamamodel.dev/v1alpha1
kind: LlamaModel
metadata: {name: templated}
spec:
  model: {pvc: {claimName: models, path: m.gguf}}
  image: example.com/llama.cpp:server-b10434
  chatTemplate: {configMapKeyRef: {name: texts, key: chat.jinja}}
  systemPrompt: {inline: "Be brief."}
"""

TEXTS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: texts}
data:
  chat.jinja: |
    {% for message in messages %}{{ message.role }}: {{ message.content }}
    {% endfor %}
"""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def llamamodel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    monkeypatch.chdir(tmp_path)
    for variable in ("NO_COLOR", "KUBECONFIG", "LLAMAMODEL_TRACEBACK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str, program: str = "llamamodel", stdin: bytes | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run([program, *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "should not happen" not in captured.err, captured.err
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file of `golden/cli`; --renew-golden writes it anew."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--renew-golden", default=False):
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{name} is missing: uv run pytest tests/unit --renew-golden"
        assert file.read_text(encoding="utf-8") == text

    return compare


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")


COMMANDS = (
    (),
    ("render",),
    ("validate",),
    ("upgrade-check",),
    ("inspect",),
    ("estimate",),
    ("status",),
    ("top",),
    ("logs",),
    ("bench",),
    ("gateway-key",),
    ("flags",),
    ("flags", "list"),
    ("flags", "diff"),
    ("builds",),
    ("completion",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples(
    command: Sequence[str], llamamodel: Callable[..., Outcome], same: Callable[[str, str], None]
) -> None:
    told = llamamodel(*command, "--help")

    assert told.code == 0
    assert "Examples:" in told.out or command == ("flags",)
    same(f"help{''.join(f'-{word}' for word in command)}.txt", told.out)


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("render.yaml", ("render", "-f", "good.yaml"), 0),
        ("render.json", ("render", "-f", "good.yaml", "-o", "json"), 0),
        ("render-command.txt", ("render", "-f", "good.yaml", "--command"), 0),
        ("render-command.json", ("render", "-f", "good.yaml", "-f", "flags.yaml", "--command", "-o", "json"), 0),
        ("render-templated.yaml", ("render", "templated.yaml", "texts.yaml"), 0),
        ("validate.txt", ("validate", "good.yaml", "bad.yaml", "flags.yaml", "missing.yaml"), 2),
        ("validate.json", ("validate", "good.yaml", "bad.yaml", "flags.yaml", "-o", "json"), 1),
        ("validate-github.txt", ("validate", "-f", "bad.yaml", "-f", "flags.yaml", "-o", "github"), 1),
        ("validate-coloured.txt", ("validate", "-f", "bad.yaml", "--color", "always"), 1),
        ("upgrade-check.txt", ("upgrade-check", "--to-build", "b11669", "-f", "old.yaml", "-f", "good.yaml"), 1),
        ("upgrade-check.json", ("upgrade-check", "--to-build", "11669", "old.yaml", "good.yaml", "-o", "json"), 1),
        ("flags.txt", ("flags", "--build", "b10434", "flash"), 0),
        ("flags.json", ("flags", "--lora*", "--build", "b10434", "-o", "json"), 0),
    ],
)
def test_what_is_printed(
    name: str,
    arguments: Sequence[str],
    code: int,
    llamamodel: Callable[..., Outcome],
    same: Callable[[str, str], None],
) -> None:
    old = GOOD.replace("name: qwen3", "name: old") + '  extraArgs: ["--mlock"]\n'
    write(good=GOOD, bad=BAD, flags=FLAGS, templated=TEMPLATED, texts=TEXTS, old=old)

    told = llamamodel(*arguments)

    assert told.code == code, told.err
    same(name, told.out)
    if name.endswith(".json"):
        assert [json.loads(line) for line in told.out.splitlines()] if "command" in name else json.loads(told.out)
    if name.endswith(".yaml"):
        assert all(document["kind"] for document in yaml.safe_load_all(told.out))


def test_secrets_are_masked_in_everything_that_is_printed(llamamodel: Callable[..., Outcome]) -> None:
    write(flags=FLAGS)

    for command in ("render", "render -o json", "render --command", "validate", "validate -o github"):
        told = llamamodel(*command.split(), "flags.yaml")
        assert "hunter2" not in told.out + told.err
        assert "--api-key" in told.out + told.err
    told = llamamodel("upgrade-check", "flags.yaml", "--to-build", "b11669")
    assert "hunter2" not in told.out + told.err


def test_findings_of_render_go_to_standard_error_and_errors_to_the_exit_code(
    llamamodel: Callable[..., Outcome],
) -> None:
    write(good=GOOD, bad=BAD)

    told = llamamodel("render", "-f", "bad.yaml", "-f", "good.yaml", "--command")

    assert told.code == 1
    assert told.out.startswith("llama-server --model")
    assert "spec.engine.ctxSize" in told.err


def test_on_a_terminal_each_flag_has_a_line_that_a_shell_reads(
    llamamodel: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamamodel_operator.cli.rendering import command_groups

    assert command_groups(["llama-server", "-a", "b", "--c", "-1", "--d"]) == [
        ("llama-server",),
        ("-a", "b"),
        ("--c", "-1"),
        ("--d",),
    ]
    write(good=GOOD)
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True, raising=False)
    lines = llamamodel("render", "-f", "good.yaml", "--command").out.splitlines()

    assert lines[0] == "llama-server \\"
    assert "  --ctx-size 8192 \\" in lines
    assert not lines[-1].endswith("\\")


def test_standard_input_lists_and_json_are_read(llamamodel: Callable[..., Outcome]) -> None:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(GOOD), yaml.safe_load(TEXTS)]})

    told = llamamodel("validate", "-f", "-", stdin=listed.encode())

    assert (told.code, told.err) == (0, "")
    assert "<stdin>:1: team-a/qwen3" in told.out


def test_strict_makes_warnings_errors(llamamodel: Callable[..., Outcome]) -> None:
    write(flags=FLAGS)

    assert llamamodel("validate", "flags.yaml").code == 0
    assert llamamodel("validate", "flags.yaml", "--strict").code == 1


def test_a_config_map_in_the_same_files_is_looked_at_and_others_are_not_known(
    llamamodel: Callable[..., Outcome],
) -> None:
    write(templated=TEMPLATED, texts=TEXTS)

    assert "TextNotSeen" in llamamodel("validate", "templated.yaml").out
    assert "TextNotSeen" not in llamamodel("validate", "templated.yaml", "texts.yaml").out
    write(texts=TEXTS.replace("chat.jinja", "other"))
    missing = llamamodel("validate", "templated.yaml", "texts.yaml")
    assert missing.code == 1
    assert "ConfigMap texts has no key chat.jinja; it has other" in missing.out
    write(texts=TEXTS.replace("{% endfor %}", ""))
    broken = llamamodel("validate", "templated.yaml", "texts.yaml")
    assert broken.code == 1
    assert "InvalidChatTemplate" in broken.out
    write(texts=TEXTS.replace("name: texts", "name: texts, namespace: elsewhere"))
    assert "TextNotSeen" not in llamamodel("validate", "templated.yaml", "texts.yaml").out
    write(templated=TEMPLATED.replace("name: templated", "name: templated, namespace: here"))
    assert "TextNotSeen" in llamamodel("validate", "templated.yaml", "texts.yaml").out


def test_folders_are_read_and_deeper_ones_when_asked(llamamodel: Callable[..., Outcome]) -> None:
    Path("a/b").mkdir(parents=True)
    Path("a/one.yaml").write_text(GOOD)
    Path("a/b/two.json").write_text(json.dumps(yaml.safe_load(GOOD)))
    Path("a/notes.txt").write_text("no manifest")
    Path("a/kustomization.yaml").write_text("resources: [one.yaml]")
    Path("a/loop").symlink_to(".")

    assert llamamodel("validate", "a", "-o", "json").out.count('"file": "a/') == 1
    assert llamamodel("validate", "-R", "a", "a/one.yaml", "-o", "json").out.count('"file": "a/') == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("missing.yaml", None, "missing.yaml: cannot be read: No such file or directory"),
        ("empty", "folder", "empty: has no .yaml, .yml, .json files; --recursive looks into its folders too"),
        ("binary.yaml", b"\x89PNG\r\n\x1a\n", "binary.yaml:1: expected text in UTF-8, found the byte 0x89"),
        ("huge.yaml", b"a" * (MAX_BYTES + 1), "huge.yaml: is larger than 8 MiB: is it a manifest?"),
        ("words.yaml", b"hello", "words.yaml:1: expected an object with apiVersion and kind, found text"),
        (
            "values.yaml",
            b"replicas: 1\n",
            "values.yaml:1: expected an object of Kubernetes, found none: apiVersion and",
        ),
        (
            "kindless.yaml",
            b"apiVersion: v1\n",
            "kindless.yaml:1: expected an object of Kubernetes, found none: kind miss",
        ),
        ("tab.yaml", b"a:\n\tb: 1\n", "tab.yaml:2: is no YAML: "),
        (
            "twice.yaml",
            b"a: 1\na: 2\n",
            "twice.yaml:2: the key 'a' is given twice, first in line 1: remove one of them",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_2_and_the_rest_is_checked(
    name: str, data: bytes | str | None, said: str, llamamodel: Callable[..., Outcome]
) -> None:
    write(good=GOOD)
    if data == "folder":
        Path(name).mkdir()
    elif isinstance(data, bytes):
        Path(name).write_bytes(data)

    told = llamamodel("validate", "-f", name, "-f", "good.yaml")

    assert told.code == 2
    (line,) = [line for line in told.out.splitlines() if line.startswith("error")]
    assert said in line
    assert "team-a/qwen3" in told.out
    rendered = llamamodel("render", "--command", name, "good.yaml")
    assert rendered.code == 2
    assert said in rendered.err
    assert rendered.out.startswith("llama-server")


def test_objects_of_other_kinds_alone_are_fine_to_validate_and_nothing_to_render(
    llamamodel: Callable[..., Outcome],
) -> None:
    write(texts=TEXTS)

    validated, rendered = llamamodel("validate", "texts.yaml"), llamamodel("render", "texts.yaml")

    assert (validated.code, validated.out) == (0, "no LlamaModels: no errors\n")
    assert (rendered.code, rendered.err) == (2, "error: no LlamaModel among 1 objects\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage: llamamodel"),
        (("rendr",), "No such command 'rendr'"),
        (("validate",), "name a file or a folder: --filename FILE, or - for standard input"),
        (("validate", "-o", "yaml", "x"), "'yaml' is not one of"),
        (("render", "--command", "-o", "yaml", "x"), "--command prints text or JSON: leave out -o yaml"),
        (("upgrade-check", "x"), "Missing option '--to-build'"),
        (("upgrade-check", "--to-build", "latest", "x"), "'latest' is no build: write one such as b10434"),
        (("upgrade-check", "--to-build", "b10434"), "give one of --filename, --all-namespaces and --namespace"),
        (("upgrade-check", "--to-build", "b10434", "x", "-A"), "give one of --filename, --all-namespaces and"),
        (("upgrade-check", "--to-build", "b1", "-A", "-n", "x"), "give one of --filename, --all-namespaces and"),
        (("flags", "--chat-templates", "x"), "--chat-templates takes no PATTERN"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
        (("validate", "--config", "none.yaml", "x"), "none.yaml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_what_to_do(
    arguments: Sequence[str], said: str, llamamodel: Callable[..., Outcome]
) -> None:
    told = llamamodel(*arguments)

    assert told.code == 2
    assert said in told.err
    assert told.out == ""


def test_as_a_plugin_of_kubectl_it_names_itself_so(llamamodel: Callable[..., Outcome]) -> None:
    assert "Usage: kubectl llamamodel" in llamamodel("--help", program="/usr/bin/kubectl-llamamodel").out


def test_the_version_is_told(llamamodel: Callable[..., Outcome]) -> None:
    assert re.fullmatch(r"llamamodel \d+\.\d+\.\d+\n", llamamodel("--version").out)


# --- flags


def test_flags_are_found_by_spelling_variable_and_glob(llamamodel: Callable[..., Outcome]) -> None:
    assert "--ctx-size" in llamamodel("flags", "ctx_size").out
    assert "--ctx-size" in llamamodel("flags", "LLAMA_ARG_CTX_SIZE").out
    assert [line.split()[0] for line in llamamodel("flags", "--ctx-siz?").out.splitlines()] == ["FLAG", "--ctx-size"]
    assert "chatml" in llamamodel("flags", "--chat-templates").out.splitlines()
    assert json.loads(llamamodel("flags", "-o", "json").out)[0]["name"].startswith("--")


def test_a_flag_that_is_not_there_is_exit_code_1_and_a_suggestion(llamamodel: Callable[..., Outcome]) -> None:
    told = llamamodel("flags", "--flash-atten", "--build", "b10434")

    assert (told.code, told.out) == (1, "")
    assert "b10434 has no flag with '--flash-atten' in its name; did you mean --flash-attn" in told.err


def test_flags_of_a_build_that_is_not_known_are_those_of_its_neighbours_and_that_is_said(
    llamamodel: Callable[..., Outcome],
) -> None:
    assert (
        "the flags of b5000 are not known; those of b4291 and b5481 are taken"
        in llamamodel("flags", "--build", "5000").err
    )
    assert "those of b11669 are taken, and nothing is certain" in llamamodel("flags", "--build", "b9999999").err


def test_the_difference_of_two_builds_names_what_is_gone_and_what_to_use(llamamodel: Callable[..., Outcome]) -> None:
    told = llamamodel("flags", "diff", "b10434", "b11669").out.splitlines()
    back = json.loads(llamamodel("flags", "diff", "b11669", "b10434", "-o", "json").out)

    assert "- --mlock: use --load-mode mlock" in told
    assert {"change": "added", "flag": "--mlock"} in back["changes"]
    assert llamamodel("flags", "diff", "b11669", "b11669").out == "b11669 and b11669 take the same flags\n"


def test_builds_are_listed(llamamodel: Callable[..., Outcome]) -> None:
    listed = json.loads(llamamodel("builds", "-o", "json").out)

    assert {"b10434", "b11669"} <= {f"b{build['build']}" for build in listed}
    assert len(llamamodel("builds").out.splitlines()) == len(listed) + 1


# --- upgrades


def test_a_model_that_changes_or_stays_is_no_failure(llamamodel: Callable[..., Outcome]) -> None:
    write(good=GOOD)

    assert llamamodel("upgrade-check", "--to-build", "b10434", "good.yaml").out.endswith(
        "to b10434: 1 stays the same\n"
    )
    assert llamamodel("upgrade-check", "--to-build", "b6332", "good.yaml").code == 0


def test_what_is_broken_already_does_not_fail_the_check(llamamodel: Callable[..., Outcome]) -> None:
    write(bad=BAD)

    told = llamamodel("upgrade-check", "--to-build", "b11669", "bad.yaml")

    assert told.code == 0
    assert "1 does not work now, and would not" in told.out


def test_the_images_of_the_configuration_are_upgraded_too(llamamodel: Callable[..., Outcome]) -> None:
    write(
        model=re.sub(r"  image: .*\n", "", GOOD) + '  extraArgs: ["--mlock"]\n',
        values="engineImages: {byResource: {nvidia.com/gpu: 'example.com:5000/llama.cpp:cuda-b10434@sha256:00'}}",
    )

    told = llamamodel("upgrade-check", "--to-build", "b11669", "model.yaml", "--config", "values.yaml")

    assert told.code == 1
    assert "RemovedFlag" in told.out
    assert "BuildMismatch" not in told.out


# --- the configuration


def test_the_values_of_the_chart_are_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(
        "replicas: 2\nlogLevel: debug\n"
        "engineImages:\n  cpu: example.com/cpu:b10434\n  byResource: {amd.com/gpu: null, x/y: z}\n"
        "modelDefaults: {endpoints: {metrics: false}}\nargumentPolicy: Strict\nallowedFlags: [--rpc]\n"
        "gpuOverhead: {nvidia: 512Mi, amd: 0}\n"
    )

    found = read_configuration(str(file))

    assert found.images.cpu == "example.com/cpu:b10434"
    assert set(found.images.by_resource) >= {"nvidia.com/gpu", "x/y"}
    assert "amd.com/gpu" not in found.images.by_resource
    assert found.defaults == {"endpoints": {"metrics": False}}
    assert found.policy.strict
    assert found.policy.allow_unsafe == {"--rpc"}
    assert found.gpu_overhead == {"nvidia": 512 << 20, "amd": 0}


def test_the_environment_of_the_operator_does_not_change_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAMODEL_OPERATOR_IMAGE_CPU", "example.com/other")
    monkeypatch.setenv("LLAMAMODEL_OPERATOR_WORKERS", "no number")

    assert read_configuration(None).images.cpu != "example.com/other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modelDefaults: {engine: {threds: 4}}", "modelDefaults.engine.threds: there is no such field"),
        ("modelDefaults: {apiKeySecretRef: {name: x}}", "modelDefaults: apiKeySecretRef: belongs to each LlamaModel"),
        ("modelDefaults: {replicas: 2}", "modelDefaults: replicas: belongs to each LlamaModel and can have no default"),
        ("modelDefaults: {engine: {batchSize: 1, microBatchSize: 2}}", "microBatchSize must not be larger"),
        ("modelDefaults: [a]", "modelDefaults: must be an object; found a list"),
        ("modelDefault: {}", "modelDefault: there is no such key; did you mean modelDefaults?"),
        ("argumentPolicy: strict", "argumentPolicy: "),
        ("allowedFlags: --rpc", "allowedFlags: "),
        (
            "gpuOverhead: {nvidia: lots}",
            "gpuOverhead: nvidia: expected what the driver takes on each GPU, such as 512Mi",
        ),
        ("gpuOverhead: {nvidia.com/gpu: 1Gi}", "expected the name of a vendor in lower case, such as nvidia"),
        ("gpuOverhead: 512Mi", "gpuOverhead: "),
        ("engineImages: latest", "engineImages: must be an object; found text"),
        ("engineImages: {byresource: {}}", "engineImages.byresource: there is no such key; did you mean byResource?"),
        ("engineImages: {byResource: []}", "engineImages.byResource: must be an object; found a list"),
        ("engineImages: {cpu: 7}", "engineImages.cpu: "),
        ("a: 1\n---\nb: 2\n", "expected one document, found 2"),
        ("a: [", "is no YAML"),
        ("- a", "expected an object"),
    ],
)
def test_a_configuration_that_the_operator_would_refuse_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text)

    with pytest.raises(BadConfigurationError) as refused:
        read_configuration(str(file))

    assert said in str(refused.value)
    assert str(refused.value).startswith(str(file))


# --- anything at all

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
SPEC = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def like(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are nearly what the schema asks for."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | ANYTHING
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {name: _deferred(field) for name, field in schema["properties"].items()}
            some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
            return some.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
        case "object":
            return st.dictionaries(st.text(max_size=8), ANYTHING, max_size=3)
        case "array":
            return st.lists(like(schema.get("items", {})), max_size=3)
        case "string":
            return st.text(max_size=12) | st.sampled_from(["chatml", "a=b", "x/y", "$(A)", "--mlock"]) | ANYTHING
        case "integer" | "number":
            return st.integers(-2, 5000) | st.floats(0, 1)
        case "boolean":
            return st.booleans()
        case _:
            return st.integers(0, 9) | st.sampled_from(["all", "auto", "4Gi"]) | ANYTHING


def _deferred(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: like(schema))


@given(st.data())
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_spec_is_too_odd_for_a_whole_check(data: st.DataObject) -> None:
    model = {"pvc": {"claimName": "models", "path": "m.gguf"}}
    metadata = data.draw(st.just({"name": "a"}) | ANYTHING)
    spec = {"model": model, **data.draw(like(SPEC))}
    raw = {"apiVersion": "llamamodel.dev/v1alpha1", "kind": "LlamaModel", "metadata": metadata, "spec": spec}
    checker = Checker(
        configuration=read_configuration(None),
        text=lambda _key, _namespace: data.draw(st.none() | st.text(max_size=10)),
        examine=lambda _template: TemplateReport(),
    )

    checked = checker.check(Manifest(raw=raw, document=Document(file="f", line=1, value=raw, marks={})))

    assert all(finding.message for finding in checked.findings)
