"""The build of llama.cpp is read from image tags and from what servers say, and never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.engine.builds import build_of_image, build_of_info

DIGEST = "@sha256:" + "b1234567" * 8


@pytest.mark.parametrize(
    ("image", "build"),
    [
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b10434", 10434),
        ("ghcr.io/ggml-org/llama.cpp:server-b9093", 9093),
        ("ghcr.io/ggml-org/llama.cpp:full-b4719", 4719),
        ("ghcr.io/ggml-org/llama.cpp:b11669", 11669),
        ("registry.local:5000/llama:server-b10434-patched", 10434),
        ("registry.local/llama:v1.2_b10434.1", 10434),
        (f"ghcr.io/ggml-org/llama.cpp:server-b10434{DIGEST}", 10434),
        ("ghcr.io/ggml-org/llama.cpp:server-vulkan-b10434", 10434),
        ("ghcr.io/ggml-org/llama.cpp:server", None),
        ("ghcr.io/ggml-org/llama.cpp", None),
        ("ghcr.io/ggml-org/llama.cpp:latest", None),
        (f"ghcr.io/ggml-org/llama.cpp{DIGEST}", None),
        ("registry.local:5000/llama-b10434", None),
        ("registry.local/b10434/llama:server", None),
        ("llama:b10434-b10435", None),
        ("llama:b10434-or-b10434", 10434),
        ("llama:sb10434", None),
        ("llama:b10434x", None),
        ("llama:b0123", None),
        ("llama:b12345678", None),
        ("", None),
    ],
)
def test_an_images_tag_names_the_build_or_nothing_does(image: str, build: int | None) -> None:
    assert build_of_image(image) == build


@pytest.mark.parametrize(
    ("build_info", "build"),
    [
        ("b10434-abcdef0", 10434),
        ("b11669-Debian", 11669),
        ("b1-4227c9b", None),
        ("b0-unknown", None),
        ("b10434", None),
        ("10434-abcdef", None),
        ("", None),
    ],
)
def test_a_server_says_its_build_unless_it_was_built_without_history(build_info: str, build: int | None) -> None:
    assert build_of_info(build_info) == build


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for build in (build_of_image(text), build_of_info(text)):
        assert build is None or build > 1
