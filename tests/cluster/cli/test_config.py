"""`squadron config`, and the reference that is made by it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.reference import reference
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError

REFERENCE = Path(__file__).parents[3] / "serve_configs" / "CONFIGURATION.md"


def test_the_reference_beside_the_configurations_is_of_today() -> None:
    made = CliRunner().invoke(app, ["config", "--markdown"])

    assert made.exit_code == 0
    assert REFERENCE.read_text() == made.output, (
        "squadron config --markdown > serve_configs/CONFIGURATION.md"
    )


def test_every_section_says_what_it_is_for() -> None:
    assert [each.path for each in reference(SquadronConfig) if not each.text] == []


def test_one_section_is_found_by_its_last_name_or_its_path() -> None:
    def asked(section: str) -> list[dict[str, object]]:
        found = json.loads(CliRunner().invoke(app, ["config", section, "--json"]).output)
        assert isinstance(found, list)
        return found

    (batching,) = asked("batching")
    assert batching["path"] == "variants.<name>.batching"
    assert asked("variants.batching") == [batching] == asked("variants.<name>.batching")
    keys = {each["name"]: each for each in batching["keys"]}  # type: ignore[attr-defined]
    assert keys["mode"]["takes"] == "`fixed`, `adaptive`, `off`"
    assert keys["max_batch_size"]["default"] == "8"
    assert keys["queue_policy"]["section"] == "variants.<name>.batching.queue_policy"


def test_a_default_is_that_of_the_place() -> None:
    """HTTP and gRPC are the same kind of section, at different ports."""
    ports = {
        each.path: key.default
        for each in reference(SquadronConfig)
        for key in each.keys
        if key.name == "port"
    }

    assert ports["server.http"] == "8000"
    assert ports["server.grpc"] == "8001"


def test_an_unknown_section_is_told_with_those_that_there_are() -> None:
    found = CliRunner().invoke(app, ["config", "batchin"])

    assert isinstance(found.exception, ConfigError)
    assert "no section 'batchin'" in found.exception.message
    assert "batching" in found.exception.message
