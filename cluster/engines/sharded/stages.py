"""The files of stages, for models that are cut into files: where they lie, and who makes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.errors import ConfigError

CUT_TIMEOUT_S = 240.0

_held: dict[Path, list[int]] = {}
"""Private folder -> its descriptors, each with a shared lock: once for every use by this process.
The kernel takes the locks of a process that was killed, so what that left is used again."""


def cut_into_files(
    file: Path, runs: Sequence[range], *, program: str, suffix: str
) -> tuple[str, ...]:
    """`stage-<n><suffix>`, made by `python -m program FILE FOLDER RUNS` unless they are there.

    A process of its own makes them: the whole model with its weights is then held by one that ends
    before any shard starts. They lie beside the artefact, or in a private folder where that cannot
    be written: `let_go` of them in the end. Raises: ConfigError with what the program said last.
    """
    folder = _folder(file, runs)
    paths = tuple(folder / f"stage-{index}{suffix}" for index in range(len(runs)))
    if not all(path.is_file() for path in paths):
        try:
            _cut(file, folder, runs, program)
        except BaseException:
            let_go(map(str, paths))
            raise
    return tuple(str(path) for path in paths)


def let_go(paths: Iterable[str]) -> None:
    """For whoever has no more use of those files: a private folder goes with its last user on this
    node. Files beside their artefact stay."""
    for folder in {Path(path).parent for path in paths}:
        descriptors = _held.get(folder)
        if not descriptors:
            continue
        descriptor = descriptors.pop()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # Somebody else's still.
        finally:
            os.close(descriptor)


def _cut(file: Path, folder: Path, runs: Sequence[range], program: str) -> None:
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


def _folder(file: Path, runs: Sequence[range]) -> Path:
    status = file.stat()
    told = json.dumps([str(file), status.st_size, status.st_mtime_ns, [r.stop for r in runs]])
    key = hashlib.sha256(told.encode()).hexdigest()[:16]
    beside = file.parent / ".stages" / key
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        return _private(Path(tempfile.gettempdir(), f"squadron-stages-{os.getuid()}-{key}"))


def _private(folder: Path) -> Path:
    """The folder, held for this process; another one where somebody else has put that name."""
    while True:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:  # No folder.
            folder = _fresh()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # Its last user has just ended.
        except OSError:
            folder = _fresh()
            continue
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            folder = _fresh()
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(folder, status):
            _held.setdefault(folder, []).append(descriptor)
            return folder
        os.close(descriptor)


def _fresh() -> Path:
    return Path(tempfile.mkdtemp(prefix="squadron-stages-"))


def _is_at(folder: Path, status: os.stat_result) -> bool:
    """False for a folder that was removed while its lock was waited for."""
    try:
        return os.path.samestat(os.stat(folder, follow_symlinks=False), status)
    except FileNotFoundError:
        return False
