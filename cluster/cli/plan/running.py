"""The topology of a running Ray cluster, asked of a process that may import Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cluster.config.planning.topology import TopologyFile
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError

RUNNING = "ray"
"""In the place of a topology file."""
OBSERVER = "actors.sharding.topology.observe"
PATIENCE_S = 120.0


def running_topology(address: str) -> TopologyFile:
    """Nodes, devices and measured speeds and links. Raises: ConfigError when no Ray answers."""
    told = ""
    for environment in _environments():
        try:
            done = subprocess.run(
                [sys.executable, "-m", OBSERVER, "--address", address],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise _unreachable(address, f"no answer within {PATIENCE_S:g} s") from None
        lines = done.stdout.strip().splitlines()
        if not done.returncode and lines:
            source = f"Ray at {address}"
            return check_section(json.loads(lines[-1]), TopologyFile, source=source)
        told = (done.stderr.strip().splitlines() or ["no Ray answered"])[-1]
    raise _unreachable(address, told)


def _environments() -> list[dict[str, str]]:
    """A Ray that was started here asks for this user's token; a client shows it in this mode only,
    and which mode a cluster is in cannot be asked."""
    given = dict(os.environ)
    token = Path(given.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_MODE" in given or not (token.is_file() or "RAY_AUTH_TOKEN" in given):
        return [given]
    return [{**given, "RAY_AUTH_MODE": "token"}, given]


def _unreachable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"--topology ray: {why}; allowed for --address: host:port of a running cluster, or auto",
        key="--address",
        value=address,
        allowed="host:port, auto",
    )
