"""Which cluster the end-to-end tests take, and that they may skip nothing on one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.foreign import Settings

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"E2E_OPERATOR_IMAGE": "r.example/operator:1", "E2E_ENGINE_IMAGE": "r.example/llama:b1"}


def test_a_kubeconfig_without_images_is_refused_with_all_that_is_missing() -> None:
    with pytest.raises(pytest.fail.Exception, match="needs E2E_OPERATOR_IMAGE and E2E_ENGINE_IMAGE"):
        Settings.read({"E2E_KUBECONFIG": __file__})


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"there is no file .*/nowhere"):
        Settings.read({"E2E_KUBECONFIG": str(tmp_path / "nowhere"), **IMAGES})


def test_the_cluster_is_told_to_hack_deploy(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    environ = {"E2E_KUBECONFIG": str(kubeconfig), **IMAGES}
    cluster = ("--kubeconfig", str(kubeconfig), "--operator-image", "r.example/operator:1")
    settings = Settings.read(environ)
    assert settings.operator_target == (*cluster, "--engine-image", "r.example/llama:b1")
    assert settings.storage_target == cluster
    assert not settings.fake_gpus
    settings = Settings.read({**environ, "E2E_STORAGE_CLASS": "fast", "E2E_FAKE_GPUS": "1"})
    assert settings.storage_target == (*cluster, "--storage-class", "fast")
    assert settings.fake_gpus


@pytest.mark.parametrize(("kubeconfig", "status"), [("", 1), ("/any", 0)])
def test_a_skipped_test_has_failed_unless_the_cluster_is_foreign(kubeconfig: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\n\ndef test_it():\n    pytest.skip('no reason')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "e2e.conftest", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'hack/cluster'}", "E2E_KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert ("only with E2E_KUBECONFIG" in done.stdout) == bool(status)


@pytest.mark.parametrize("verb", ["operator", "storage"])
def test_deploying_elsewhere_needs_an_image(verb: str, tmp_path: Path) -> None:
    command = [sys.executable, "hack/deploy", verb, "--kubeconfig", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--kubeconfig needs --operator-image" in done.stderr
