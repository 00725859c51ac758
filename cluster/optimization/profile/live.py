"""A running process looked into from outside, by py-spy: nothing in it is changed or restarted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.errors import ConfigError
from cluster.optimization.export.whole import beside

GRACE_S = 120
"""py-spy reads the symbols of every library of the process before and after."""


def py_spy() -> str:
    """Its path. Raises: ConfigError when it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ConfigError("py-spy is not installed: pip install py-spy", key="live")
    return found


def record(pid: int, target: Path, *, seconds: int = 10, chrome: bool = False) -> None:
    """Write a flame graph (SVG) or a Chrome trace of `seconds` of process `pid` to `target`, whole
    or not at all.

    Raises: ConfigError when the process is not there or may not be looked into.
    """
    if not 1 <= seconds <= 600:
        raise ConfigError(f"seconds is {seconds}; allowed: 1 to 600", key="seconds", value=seconds)
    if not is_there(pid):
        raise ConfigError(f"there is no process {pid} on this machine", key="live", value=pid)
    form = "chrometrace" if chrome else "flamegraph"
    with beside(target) as folder:
        made = folder / "recorded"
        command = [
            py_spy(), "record", "--pid", str(pid), "--duration", str(seconds), "--format", form,
            "--output", str(made), "--threads", "--nonblocking",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"process {pid} cannot be profiled: py-spy had not ended {GRACE_S} s after the "
                f"{seconds} s were over",
                key="live",
                value=pid,
            ) from None
        if done.returncode != 0 or not made.is_file():
            said = why(done.stderr or done.stdout) or f"exit code {done.returncode}"
            raise ConfigError(f"process {pid} cannot be profiled: {said}", key="live", value=pid)
        made.replace(target)


def is_there(pid: int) -> bool:
    try:
        # Signal 0 asks and sends nothing; 0 and below would ask groups of processes.
        os.kill(max(pid, 1), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def why(text: str) -> str:
    """What py-spy says went wrong: below its error it prints where in its own code that was."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "permission denied" in text.lower() or "not permitted" in text.lower():
        return (
            "this user may not look into it; run the command as the user the process belongs to, "
            "or as root (in a container: with the capability SYS_PTRACE)"
        )
    errors = [line for line in lines if line.startswith("Error")] or lines[-1:]
    return errors[0] if errors else ""
