"""Which build of llama.cpp an image or a server is, as far as its name says."""

from __future__ import annotations

import re

__all__ = ["build_of_image", "build_of_info"]

_TAG = re.compile(r"(?:^|[-_.])b([1-9]\d{2,6})(?=$|[-_.])")
_INFO = re.compile(r"b([1-9]\d{0,6})-\S")
_WITHOUT_HISTORY = 1
"""What a build from a source tree without git says of itself (llama.cpp: cmake/build-info.cmake)."""


def build_of_image(image: str) -> int | None:
    """The build that an image's tag names, as in ghcr.io/ggml-org/llama.cpp:server-cuda-b10434.

    None where the tag names none (server, latest), where there is no tag, and where it names two.
    """
    name = image.partition("@")[0]
    _, colon, tag = name.rpartition("/")[2].partition(":")
    found = set(_TAG.findall(tag)) if colon else set()
    return int(found.pop()) if len(found) == 1 else None


def build_of_info(build_info: str) -> int | None:
    """The build that a running server says it is: `build_info` of /props, as in b10434-abcdef or b11669-Debian.

    None for anything else, and for b1-…, which a build without git history says.
    """
    found = _INFO.match(build_info)
    build = int(found[1]) if found else _WITHOUT_HISTORY
    return build if build > _WITHOUT_HISTORY else None
