"""Where the processes of one node meet: metrics files and port locks of this Ray session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import ray


def node_folder() -> Path:
    """One folder a Ray session and node; the same answer in every process of both."""
    session = ray.get_runtime_context().get_session_name()
    folder = Path(tempfile.gettempdir()) / f"squadron-{os.getuid()}" / session
    # Of this user alone: another's Squadron on the same machine has a folder of its own.
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def metrics_folder() -> Path:
    return node_folder() / "metrics"
