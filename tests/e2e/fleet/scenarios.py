"""The scenarios of `loadtests.fleet`, run as they are, a small slice of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.fleet.pods import why_not

REASON = why_not()
needs_pods = pytest.mark.skipif(bool(REASON), reason=f"no pods on this machine: {REASON}")


def scenario(root: Path, store: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What a scenario found; its logs stay in the folder."""
    options = ["--store", str(store), "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.fleet", *words, *options],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
