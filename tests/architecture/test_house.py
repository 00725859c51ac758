"""What the project promises of itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from cluster.config.serve_file import read_serve_file
from cluster.config.variant import VariantConfig
from cluster.engines import table
from cluster.models import EngineName

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("cluster/**/*.py"), *ROOT.glob("actors/**/*.py")])


@pytest.mark.parametrize("file", sorted(ROOT.glob("serve_configs/*.yaml")), ids=lambda f: f.name)
def test_every_serve_config_loads(file: Path) -> None:
    _, config = read_serve_file(file)

    assert config.model_names()


def test_the_engines_of_the_config_of_the_table_and_of_the_literal_agree() -> None:
    assert set(table.ENGINES) == set(get_args(EngineName))
    field = VariantConfig.model_fields["engine"]
    assert EngineName in get_args(field.annotation)


def test_every_package_init_is_empty() -> None:
    for file in SOURCES:
        if file.name == "__init__.py" and file.parent.name != "client":
            assert file.read_text() == "", file


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_functions_and_files_stay_readable(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_a_folder_has_at_most_about_a_dozen_files() -> None:
    for folder in {file.parent for file in SOURCES}:
        num_files = len([f for f in folder.glob("*.py") if f.name != "__init__.py"])
        assert num_files <= 16, folder


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))

    assert named
    assert named <= targets


def test_every_squadron_command_of_the_readme_exists() -> None:
    import typer

    from cluster.cli.main import app

    named = 0
    for page in ("README.md", "k8s/README.md", "serve_configs/CONFIGURATION.md"):
        code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / page).read_text(), re.DOTALL)
        for words in re.findall(r"(?<![\w.-])squadron ((?:[a-z0-9]+[ `\n]?)+)", "\n".join(code)):
            at: Any = typer.main.get_command(app)
            for word in words.replace("`", " ").split():
                if not hasattr(at, "list_commands"):
                    break
                at = at.get_command(None, word)
                assert at is not None, f"{page}: squadron {words}"
                named += 1
    assert named > 20


def test_nothing_is_ever_unpickled_or_evaluated() -> None:
    """No pickle, eval or exec of anything a client or a model store could supply."""
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.split(".")[0] for alias in node.names}, file
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), file
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert [ast.literal_eval(k.value) for k in safe] == [True], file
            if isinstance(node, ast.Call) and re.fullmatch(
                r"Auto\w+\.from_pretrained", ast.unparse(node.func)
            ):
                # Left out, transformers asks at the terminal whether a model's own code may run.
                told = [k for k in node.keywords if k.arg == "trust_remote_code"]
                assert [ast.literal_eval(k.value) for k in told] == [False], file
