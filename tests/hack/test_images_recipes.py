"""The names of the images: they change when, and only when, what is in the image changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from devimages.recipes import ENGINE, OPERATOR, image_name


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        ".dockerignore": "*\n",
        "Dockerfile": "FROM scratch\n",
        "README.md": "# Title\n",
        "operator/llamamodel_operator/__init__.py": "",
        "operator/llamamodel_operator/core/plan.py": "x = 1\n",
        "pyproject.toml": "[project]\n",
        "uv.lock": "version = 1\n",
        "hack/images/engine/Dockerfile": "FROM scratch\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_the_names_say_whose_image_it_is_and_that_it_is_for_development(checkout: Path) -> None:
    assert image_name(OPERATOR, root=checkout).startswith("localhost/llamamodel-operator:dev-")
    assert image_name(ENGINE, root=checkout).startswith("localhost/llama-server:dev-")
    assert len(image_name(ENGINE, root=checkout).rpartition("dev-")[2]) == 12


def test_a_suffix_goes_into_the_repository_not_into_the_tag(checkout: Path) -> None:
    assert image_name(OPERATOR, root=checkout, suffix="-ci") == image_name(OPERATOR, root=checkout).replace(
        "-operator:", "-operator-ci:"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "operator/llamamodel_operator/core/plan.py").write_text("x = 2\n"),
        lambda root: (root / "operator/llamamodel_operator/core/new.py").write_text(""),
        lambda root: (root / "operator/llamamodel_operator/core/plan.py").unlink(),
        lambda root: (root / "operator/llamamodel_operator/core/plan.py").rename(root / "operator/moved.py"),
        lambda root: (root / "operator/llamamodel_operator/core/plan.py").chmod(0o755),
        lambda root: (root / "uv.lock").write_text("version = 2\n"),
        lambda root: (root / "Dockerfile").write_text("FROM other\n"),
    ],
    ids=["edited", "added", "deleted", "moved", "executable", "lock", "Dockerfile"],
)
def test_a_change_of_an_input_gives_the_operator_a_new_name(checkout: Path, change: Callable[[Path], object]) -> None:
    before = image_name(OPERATOR, root=checkout)
    change(checkout)
    assert image_name(OPERATOR, root=checkout) != before


def test_what_does_not_run_does_not_rename_the_operator(checkout: Path) -> None:
    before = image_name(OPERATOR, root=checkout)
    cached = checkout / "operator/llamamodel_operator/__pycache__"
    cached.mkdir()
    (cached / "plan.cpython-313.pyc").write_bytes(b"\0")
    (checkout / "README.md").write_text("# Another title\n")
    (checkout / "hack/images/engine/Dockerfile").write_text("FROM other\n")
    assert image_name(OPERATOR, root=checkout) == before


def test_the_engine_depends_on_its_own_recipe_alone(checkout: Path) -> None:
    before = image_name(ENGINE, root=checkout)
    (checkout / "uv.lock").write_text("version = 2\n")
    assert image_name(ENGINE, root=checkout) == before
    (checkout / "hack/images/engine/Dockerfile").write_text("FROM other\n")
    assert image_name(ENGINE, root=checkout) != before
