"""Real llama-server builds. They come from `python3 hack/servers fetch`; without them these tests fail."""

from pathlib import Path

import pytest
from devservers.fetch import Cache, cache_from_environment
from devservers.pins import SERVERS


def server_command(name: str) -> Path:
    """The command that starts a build. Fails where it was not fetched, skips where Debian has another one by now."""
    cache = Cache(folder=cache_from_environment(), mirrors=(), say=print)
    if path := cache.path(SERVERS[name]):
        return path
    if (other := cache.instead(SERVERS[name])) is not None:
        pytest.skip(f"Debian has no {name} any more, b{other} was fetched instead")
    pytest.fail(f"{name} is not there; run `python3 hack/servers fetch`", pytrace=False)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> tuple[int, Path]:
    """Each build at hand: its number, and the command that starts it."""
    return SERVERS[request.param].build, server_command(request.param)
