"""Virtual environments of the public clients that cannot live beside ours, made when needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".environments"
INSTALL_S = 480


class NoEnvironment(Exception):
    """An environment cannot be had here; the message says why."""


def environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of an environment with these packages, made where it is missing.

    Only `make conformance` makes them; a slice in `make test` uses those that are there.

    Raises: NoEnvironment with the end of pip's output.
    """
    folder = FOLDER / name
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        if os.environ.get("SQUADRON_CONFORMANCE") != "1":
            raise NoEnvironment("`make conformance` makes its environment")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
        _run([*pip, "--disable-pip-version-check", "--retries", "1", *requirements])
        stamp.write_text(wanted)
    return folder / "bin"


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise NoEnvironment(f"{command[-1]} took longer than {INSTALL_S} s") from None
    if done.returncode:
        raise NoEnvironment((done.stderr or done.stdout).strip()[-400:])
