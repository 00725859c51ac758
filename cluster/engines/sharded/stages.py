"""The files of stages, for models that are cut into files: where they lie, and who makes them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import ConfigError

CUT_TIMEOUT_S = 240.0


def cut_into_files(
    file: Path, runs: Sequence[range], *, program: str, suffix: str
) -> tuple[str, ...]:
    """`stage-<n><suffix>`, made by `python -m program FILE FOLDER RUNS` unless they are there.

    A process of its own makes them: the whole model with its weights is then held by one that ends
    before any shard starts. They lie beside the artefact, or in a private folder where that cannot
    be written. Raises: ConfigError with what the program said last.
    """
    folder = _folder(file, runs)
    paths = tuple(folder / f"stage-{index}{suffix}" for index in range(len(runs)))
    if not all(path.is_file() for path in paths):
        told = json.dumps([[run.start, run.stop] for run in runs])
        done = subprocess.run(
            [sys.executable, "-m", program, str(file), str(folder), told],
            capture_output=True,
            text=True,
            timeout=CUT_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigError(f"{file}: cannot be cut: {said}", file=str(file), key="placement")
    return tuple(str(path) for path in paths)


def _folder(file: Path, runs: Sequence[range]) -> Path:
    stat = file.stat()
    told = json.dumps([str(file), stat.st_size, stat.st_mtime_ns, [r.stop for r in runs]])
    key = hashlib.sha256(told.encode()).hexdigest()[:16]
    beside = file.parent / ".stages" / key
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        return Path(tempfile.mkdtemp(prefix="squadron-stages-"))
