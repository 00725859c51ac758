"""A running process looked into from outside, by py-spy: nothing in it is changed or restarted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from cluster.errors import ConfigError


def py_spy() -> str:
    """Its path. Raises: ConfigError when it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ConfigError("py-spy is not installed: pip install py-spy", key="live")
    return found


def record(pid: int, target: Path, *, seconds: int = 10, chrome: bool = False) -> None:
    """Write a flame graph (SVG) or a Chrome trace of `seconds` of process `pid` to `target`.

    Raises: ConfigError when the process is not there or may not be looked into.
    """
    if not 1 <= seconds <= 600:
        raise ConfigError(f"seconds is {seconds}; allowed: 1 to 600", key="seconds", value=seconds)
    form = "chrometrace" if chrome else "flamegraph"
    done = subprocess.run(
        [
            py_spy(), "record", "--pid", str(pid), "--duration", str(seconds), "--format", form,
            "--output", str(target), "--threads", "--nonblocking",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )  # fmt: skip
    if done.returncode != 0 or not target.is_file():
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # Below the error py-spy prints where in its own code it came to be.
        errors = [line for line in lines if line.startswith("Error")] or lines[-1:]
        said = errors[0] if errors else f"exit code {done.returncode}"
        raise ConfigError(f"process {pid} cannot be profiled: {said}", key="live", value=pid)
