"""The topology of a running Ray cluster, asked of a process that may import Ray."""

from __future__ import annotations

import json
import subprocess
import sys

from cluster.config.planning.topology import TopologyFile
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError

RUNNING = "ray"
"""In the place of a topology file."""
OBSERVER = "actors.sharding.topology.observe"
PATIENCE_S = 120.0


def running_topology(address: str) -> TopologyFile:
    """Nodes, devices and measured speeds and links. Raises: ConfigError when no Ray answers."""
    command = [sys.executable, "-m", OBSERVER, "--address", address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer within {PATIENCE_S:g} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        told = done.stderr.strip().splitlines() or ["no Ray answered"]
        raise _unreachable(address, told[-1])
    return check_section(json.loads(lines[-1]), TopologyFile, source=f"Ray at {address}")


def _unreachable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"--topology ray: {why}; allowed for --address: host:port of a running cluster, or auto",
        key="--address",
        value=address,
        allowed="host:port, auto",
    )
