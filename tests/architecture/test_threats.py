"""The threat model names its tests; they must be there."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

PAGE = ROOT / "k8s/THREATS.md"


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, found)}


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text()))
    missing = {(file, name) for file, name in named if name not in functions_of(file)}

    assert len(named) > 30
    assert missing == set()


def test_every_threat_names_a_test() -> None:
    table = PAGE.read_text().split("## What could go wrong")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]

    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row.split("|")[3]] == []


def test_the_readme_leads_to_the_threat_model() -> None:
    assert "(k8s/THREATS.md)" in (ROOT / "README.md").read_text()
