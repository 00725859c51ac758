"""Where the processes of one node meet: metrics files and port locks of this Ray session."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
from pathlib import Path

import ray

LOCK = ".lock"


def node_folder() -> Path:
    """One folder a Ray session and node; the same answer in every process of both."""
    session = ray.get_runtime_context().get_session_name()
    # Of this user alone: another's Squadron on the same machine has a folder of its own.
    return session_folder(Path(tempfile.gettempdir()) / f"squadron-{os.getuid()}", session)


def session_folder(parent: Path, session: str) -> Path:
    """The session's folder, which stays while this process lives; those that no process holds any
    more are removed."""
    parent.mkdir(mode=0o700, exist_ok=True)
    _hold(parent / f"{session}{LOCK}")
    folder = parent / session
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _hold(lock: Path) -> int:
    """Kept open: the system releases the lock when the process ends, however it ends."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    for other in lock.parent.glob(f"*{LOCK}"):
        if other != lock:
            _remove_if_over(other)
    return held


def _remove_if_over(lock: Path) -> None:
    try:
        with lock.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
    except OSError:
        return  # held by a living process, or another has removed it just now


def metrics_folder() -> Path:
    return node_folder() / "metrics"
