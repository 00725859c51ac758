"""Models that are cut into files: who looks at the whole graph, and where the stages' files lie.

A graph is opened by a process of its own that ends before any shard starts, so that neither the
process that deploys nor a replica ever holds the whole model.
"""

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
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from cluster.errors import ConfigError, SquadronError
from cluster.placement.partition import LayeredModel

CUT_TIMEOUT_S = 240.0

_held: dict[Path, list[int]] = {}
"""Private folder -> its descriptors, each with a shared lock: once for every use by this process.
The kernel takes the locks of a process that was killed, so what that left is used again."""


def layers_of(file: Path, *, program: str) -> LayeredModel:
    """What `python -m program FILE` tells of it. Raises: ConfigError with what it said last."""
    try:
        status = file.stat()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", file=str(file), key="artefact") from None
    return _layers(file, program, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _layers(file: Path, program: str, size: int, mtime_ns: int) -> LayeredModel:
    """Once for each state of the file: several variants may cut it."""
    # The last line: libraries may print before it.
    told = _answer(program, [str(file)], file).strip().splitlines()[-1]
    return msgspec.json.decode(told, type=LayeredModel)


def answer_program(
    arguments: Sequence[str],
    segments: Callable[[Path], LayeredModel],
    write_stages: Callable[[Path, Path, Sequence[range]], None],
) -> None:
    """What a program of a format does with its arguments: FILE, or FILE FOLDER RUNS."""
    try:
        if len(arguments) == 1:
            print(msgspec.json.encode(segments(Path(arguments[0]))).decode())
            return
        file, folder, told = arguments
        write_stages(Path(file), Path(folder), [range(*bounds) for bounds in json.loads(told)])
    except SquadronError as error:
        sys.exit(error.message)


def cut_into_files(
    file: Path, runs: Sequence[range], *, program: str, suffix: str
) -> tuple[str, ...]:
    """`stage-<n><suffix>`, made by `python -m program FILE FOLDER RUNS` unless they are there.

    They lie beside the artefact, or in a private folder where that cannot
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
    _answer(program, [str(file), str(folder), told], file)


def _answer(program: str, arguments: Sequence[str], file: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        capture_output=True,
        text=True,
        timeout=CUT_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"{file}: cannot be cut: {said}", file=str(file), key="placement")
    return done.stdout


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
