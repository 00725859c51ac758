from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from cluster.cli.check import check

app = typer.Typer()
app.command()(check)


def test_a_mistake_is_one_json_object_as_well(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("http_optons: {}\napplications: []\n")
    result = CliRunner().invoke(app, [str(file), "--json"])
    assert result.exit_code == 2
    content = json.loads(result.stdout)
    assert (content["file"], content["ok"]) == (str(file), False)
    assert "http_optons" in content["error"]


def test_one_of_a_kind_is_counted_in_the_singular() -> None:
    file = Path(__file__).parents[3] / "serve_configs" / "prod.yaml"
    result = CliRunner().invoke(app, [str(file)])
    assert "1 experiment," in " ".join(result.stdout.split())
