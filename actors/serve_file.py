"""The file of `serve run FILE`, found from inside the cluster that it started.

Serve gives a builder what stands under `args:` only, and itself accepts any key beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from cluster.config.serve_file import read_serve_file
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError


def read_config(args: dict[str, object], file: Path | None) -> SquadronConfig:
    """The configuration; of a file that is known, every other key is checked as well.

    Raises: ConfigError naming file, key, value and what is allowed.
    """
    if file is not None:
        read_serve_file(file)
    source = "the application's args" if file is None else f"{file}: args"
    return check_section(args, SquadronConfig, source=source)


def naming(error: ConfigError, file: Path | None) -> ConfigError:
    """The error with the file that it is about, where that is known."""
    if file is None or str(file) in error.message:
        return error
    return ConfigError(f"{file}: {error.message}", **{**error.details, "file": str(file)})


def file_of(args: dict[str, object], pid: int | str = "self") -> Path | None:
    """The file whose application has these args, among those of a `serve run` above this process.

    None where none is found: the application was joined to a cluster that ran already or came in
    another way (`serve deploy`), or the system has no `/proc`.
    """
    for command, folder in _ancestors(pid):
        for name in _given_to_serve_run(command):
            file = folder / name
            if file.is_file() and _holds(file, args):
                return file
    return None


def _ancestors(pid: int | str) -> Iterator[tuple[Sequence[str], Path]]:
    """Command line and working directory of a process and of those above it."""
    here = str(pid)
    while here != "0":
        process = Path("/proc") / here
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            folder = (process / "cwd").readlink()
            status = (process / "status").read_text()
        except OSError:  # gone by now, another user's, or no such thing on this system
            return
        yield command, folder
        here = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))


def _given_to_serve_run(command: Sequence[str]) -> Sequence[str]:
    for index, word in enumerate(command[:-1]):
        if Path(word).name == "serve" and command[index + 1] == "run":
            return [name for name in command[index + 2 :] if name.endswith((".yaml", ".yml"))]
    return ()


def _holds(file: Path, args: dict[str, object]) -> bool:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    applications = content.get("applications") if isinstance(content, dict) else None
    return isinstance(applications, list) and any(
        isinstance(each, dict) and each.get("args", {}) == args for each in applications
    )
