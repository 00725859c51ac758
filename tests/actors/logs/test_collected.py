"""What the logging component's sidecar makes of lines that our processes and Serve really write.

Fluent Bit is in no package index, so its pipeline is followed here: `grep` leaves out, `parser`
opens JSON objects and leaves everything else as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CODE = """
import logging, sys
from ray.serve._private.common import ServeComponentType
from ray.serve._private.logging_utils import configure_component_logger as configure
from ray.serve.schema import LoggingConfig
from actors.logs.line import LINE, Line
from actors.logs.set_up import set_up_logs
from cluster.config.observability.logs import LogsConfig

folder, role = sys.argv[1:]
config = LoggingConfig(encoding="JSON", logs_dir=folder, enable_access_log=False)
kind = {"proxy": None, "door": ServeComponentType.REPLICA}.get(role)
configure(
    component_name="squadron_gateway" if kind else "serve" if role == "controller" else "proxy",
    component_id="s2t14uo2", logging_config=config, component_type=kind, max_bytes=10**7,
    backup_count=1, stream_handler_only=role == "controller",
)
if role != "proxy":
    set_up_logs(LogsConfig(format="json", access_log=True), role=role)
LINE.set(Line("POST", "/x", request_id="r1", tenant="", trace_parent="", size=1))
serve, ours = logging.getLogger("ray.serve"), logging.getLogger("squadron.http")
serve.warning('of serve, "role":"door" and a\\nsecond line' if role != "proxy" else "of serve")
if role != "proxy":
    ours.warning("of ours")
    logging.getLogger("squadron.access_log").info("x", extra={"squadron": {"status": 200}})
    try:
        raise ValueError("bad\\nthing")
    except ValueError:
        ours.exception("failed")
print("a library's own words", file=sys.stderr)
"""
OF_RAY = (":job_id:01000000", ":actor_name:ServeReplica:squadron:gateway")
"""What Ray writes at the head of a process's files."""

Record = dict[str, Any]


def pipeline() -> list[dict[str, Any]]:
    file = ROOT / "k8s/components/logging/fluent-bit.yaml"
    config = yaml.safe_load(file.read_text())["data"]["fluent-bit.yaml"]
    filters: list[dict[str, Any]] = yaml.safe_load(config)["pipeline"]["filters"]
    return filters


def collected(tag: str, lines: Iterable[str]) -> list[Record]:
    """The records that reach standard output."""
    records: list[Record] = [{"log": line, "file": "/tmp/ray/x"} for line in lines]
    for each in pipeline():
        if not fnmatch(tag, each["match"]):
            continue
        if each["name"] == "grep":
            key, pattern = each["exclude"].split(" ", 1)
            records = [r for r in records if not re.search(pattern, str(r.get(key, "")))]
        else:
            assert (each["name"], each["key_name"], each["reserve_data"]) == ("parser", "log", True)
            records = [_parsed(record) for record in records]
    return records


def _parsed(record: Record) -> Record:
    try:
        found = json.loads(record["log"])
    except ValueError:
        return record
    kept = {name: value for name, value in record.items() if name != "log"}
    return {**kept, **found} if isinstance(found, dict) else record


@pytest.fixture(params=["door", "controller", "proxy"])
def role(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_line_is_collected_once_and_with_its_fields(role: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), role],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    files = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    written = done.stderr.splitlines()

    records = collected("process", [*OF_RAY, *written]) + collected("serve", files)

    told = [str(record.get("message", record.get("log"))) for record in records]
    of_serve = [record for record in records if "of serve" in str(record.get("message", ""))]
    # Serve said it to standard error and to its file, where it has one.
    assert bool(files) is (role != "controller")
    assert "of serve" in done.stderr
    assert len(of_serve) == 1, told
    assert not any("of serve" in str(record.get("log", "")) for record in records)
    assert told.count("a library's own words") == 1
    assert not any(each.startswith(":") for each in told)
    if role != "proxy":
        (ours,) = (record for record in records if record.get("message") == "of ours")
        (access,) = (record for record in records if record.get("status") == 200)
        (failed,) = (record for record in records if record.get("message") == "failed")
        assert (ours["role"], ours["request_id"], ours["level"]) == (role, "r1", "WARNING")
        assert access["logger"] == "squadron.access_log"
        assert "ValueError: bad\nthing" in failed["error"]
    assert all(record["file"] for record in records)
