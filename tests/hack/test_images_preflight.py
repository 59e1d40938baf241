"""What a machine lacks for building images is said all at once, with what to do."""

import dataclasses

import pytest
from devimages.errors import NotBuildableError
from devimages.preflight import Machine, require_builder

ABLE = Machine(
    platform="linux",
    uid=0,
    docker="there is no docker on PATH",
    which=lambda tool: f"/usr/bin/{tool}",
    has_debian_keyring=True,
)


def test_a_docker_daemon_is_enough() -> None:
    bare = dataclasses.replace(ABLE, docker=None, platform="darwin", uid=501, which=lambda _: None)
    assert require_builder(bare) == "docker"


def test_without_docker_root_and_the_tools_do() -> None:
    assert require_builder(ABLE) == "buildah"


def test_everything_that_is_missing_is_listed_at_once() -> None:
    bare = dataclasses.replace(ABLE, uid=1000, which=lambda _: None, has_debian_keyring=False)
    with pytest.raises(NotBuildableError) as caught:
        require_builder(bare)
    message = str(caught.value)
    assert "there is no docker on PATH" in message
    assert "root (run it with sudo)" in message
    assert "apt-get install --yes buildah debootstrap util-linux debian-archive-keyring" in message


def test_another_platform_is_named() -> None:
    with pytest.raises(NotBuildableError, match=r"Linux \(this is darwin\)"):
        require_builder(dataclasses.replace(ABLE, platform="darwin"))
