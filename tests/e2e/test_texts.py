"""Chat templates, system prompts and grammars: what the server that runs makes of them, and that changes roll it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import Client, serve, served
from support.kube import Kube, eventually, llama_model
from support.prompts import PROMPTS

pytestmark = pytest.mark.e2e

NAME = "texts"
HELLO = {"role": "user", "content": "Hello there"}
SYSTEM_PROMPT = 'You are "kind".\nUse {{ braces }} and äöü.'
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}</{{ message.role }}>{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def manifest(**spec: Any) -> dict[str, Any]:
    engine = {"contextSize": 2048, "parallelSlots": 1, "threads": 2, "skipWarmup": True}
    return llama_model(NAME, engine=engine, **spec)


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": data}


def reference(key: str) -> dict[str, Any]:
    return {"configMapKeyRef": {"name": "words", "key": key}}


def rendered(client: Client, *messages: dict[str, str]) -> str:
    """What the server's chat template makes of the messages."""
    prompt: str = client.post(NAME, "/apply-template", messages=list(messages)).body["prompt"]
    return prompt


def texts_of(kube: Kube, model: dict[str, Any]) -> dict[str, str]:
    """Files that are mounted into the pod of this spec."""
    (pod,) = kube.select("pods", model["status"]["selector"])
    (name,) = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if volume["name"] == "texts"]
    data: dict[str, str] = kube.must_get("configmap", name)["data"]
    return data


@pytest.fixture(scope="module")
def built_in(kube: Kube) -> None:
    """What comes with llama-server, and with the operator."""
    serve(kube, manifest(chatTemplate={"preset": "vicuna"}, grammar={"builtin": "json"}))


@pytest.fixture(scope="module")
def inline(kube: Kube, built_in: None) -> dict[str, Any]:
    """All in the manifest."""
    return serve(
        kube,
        manifest(
            chatTemplate={"inline": TEMPLATE},
            grammar={"inline": 'root ::= "left" | "right"\n'},
            systemPrompt={"inline": SYSTEM_PROMPT},
        ),
    )


@pytest.fixture(scope="module")
def referenced(kube: Kube, inline: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All in a ConfigMap that the operator is not told of; its template takes no system message."""
    kube.apply(config_map(template=NO_SYSTEM + TEMPLATE, grammar='root ::= "up"\n', prompt=SYSTEM_PROMPT))
    yield serve(
        kube,
        manifest(chatTemplate=reference("template"), grammar=reference("grammar"), systemPrompt=reference("prompt")),
    )
    kube.delete("lm", NAME)


def test_a_preset_is_what_renders(client: Client, built_in: None) -> None:
    assert rendered(client, HELLO).startswith("USER: Hello there")


def test_the_built_in_json_grammar_ends_with_valid_json_in_20_of_20_tries(client: Client, built_in: None) -> None:
    asked = [{"prompt": prompt, "temperature": 0, "max_tokens": 1500} for prompt in PROMPTS]
    choices = [answer.body["choices"][0] for answer in client.post_each(NAME, "/v1/completions", asked)]
    assert [choice["finish_reason"] for choice in choices] == ["stop"] * 20
    assert all(isinstance(json.loads(choice["text"]), dict | list) for choice in choices)


def test_an_inline_template_renders_the_system_prompt_unless_the_request_has_one(
    kube: Kube, client: Client, inline: dict[str, Any]
) -> None:
    assert rendered(client, HELLO) == f"<system>{SYSTEM_PROMPT}</system><user>Hello there</user>"
    own = {"role": "system", "content": "My own"}
    assert rendered(client, own, HELLO) == "<system>My own</system><user>Hello there</user>"


def test_the_system_prompt_is_in_the_template_that_the_command_line_names(kube: Kube, inline: dict[str, Any]) -> None:
    command = inline["status"]["command"]
    file = command[command.index("--chat-template-file") + 1].rpartition("/")[2]
    template = texts_of(kube, inline)[file]
    assert "Use {{ braces }} and äöü." in template
    assert TEMPLATE in template


def test_an_inline_grammar_is_obeyed(client: Client, inline: dict[str, Any]) -> None:
    asked = [{"prompt": prompt, "temperature": 1, "seed": seed} for seed, prompt in enumerate(PROMPTS[:5])]
    answers = client.post_each(NAME, "/v1/completions", asked)
    assert {answer.body["choices"][0]["text"] for answer in answers} <= {"left", "right"}


def test_where_the_template_refuses_a_system_message_the_prompt_goes_into_the_first_user_message(
    client: Client, referenced: dict[str, Any]
) -> None:
    assert rendered(client, HELLO) == f"<user>{SYSTEM_PROMPT}\nHello there</user>"
    codes = {finding["code"]: finding["severity"] for finding in referenced["status"]["findings"]}
    assert codes["SystemPromptInUserMessage"] == "info"


def test_texts_of_a_config_map_are_what_the_server_has(client: Client, referenced: dict[str, Any]) -> None:
    assert client.post(NAME, "/v1/completions", prompt="Hi").body["choices"][0]["text"] == "up"


def test_a_changed_config_map_rolls_the_pods_within_a_minute_and_with_our_label_at_once(
    kube: Kube, client: Client, referenced: dict[str, Any]
) -> None:
    before = revision_of(kube)
    kube.patch("configmap", "words", {"data": {"grammar": 'root ::= "down"\n', "template": TEMPLATE}})
    wait_for_roll(kube, before=before, within=60)
    assert client.post(NAME, "/v1/completions", prompt="Hi").body["choices"][0]["text"] == "down"
    assert rendered(client, HELLO) == f"<system>{SYSTEM_PROMPT}</system><user>Hello there</user>"

    before = revision_of(kube)
    kube("label", "configmap", "words", "llamamodel.dev/watch=true")
    kube.patch("configmap", "words", {"data": {"prompt": "Be brief."}})
    wait_for_roll(kube, before=before, within=10)  # without the label it is looked at every 30 s
    assert rendered(client, HELLO) == "<system>Be brief.</system><user>Hello there</user>"


def revision_of(kube: Kube) -> str:
    """Of the pods that the Deployment makes now."""
    labels = kube.must_get("deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    revision: str = labels["llamamodel.dev/revision"]
    return revision


def wait_for_roll(kube: Kube, *, before: str, within: float) -> None:
    """Until the Deployment makes other pods, within so many seconds; then until one of them serves alone."""
    eventually(lambda: revision_of(kube) != before, within=within)
    wanted = f"llamamodel.dev/model={NAME},llamamodel.dev/revision={revision_of(kube)}"
    eventually(lambda: kube.select("pods", wanted), within=30)
    kube("wait", "--for=condition=Ready", "pods", f"--selector={wanted}", "--timeout=120s")
    served(kube, NAME)
