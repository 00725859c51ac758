"""A PostgreSQL of this test's own, on a Unix socket in a folder of its own."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = shutil.which("initdb") or next(
    (str(each) for each in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
)
# It refuses to run as root.
USER = "postgres" if os.geteuid() == 0 else getpass.getuser()
HAS_USER = any(each.pw_name == USER for each in pwd.getpwall())
needs_postgres = pytest.mark.skipif(
    PROGRAM is None or not HAS_USER,
    reason="no PostgreSQL on this machine (Debian: apt-get install postgresql)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        log = str(self.folder / "log")
        self._control("-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "-w", "stop")

    def _control(self, *words: str) -> None:
        _run("pg_ctl", "-D", str(self.folder / "data"), *words)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    # The system's user of PostgreSQL cannot look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="sqpg"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        _run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", USER, "--no-sync")
        server = PostgresServer(folder=folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, *words: str) -> None:
    assert PROGRAM is not None
    command = [str(Path(PROGRAM).resolve().with_name(program)), *words]
    # A file: the server inherits what is open, and a pipe would be waited for as long as it lives.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command,
            check=False,
            stdout=said,
            stderr=subprocess.STDOUT,
            user=USER if os.geteuid() == 0 else None,
            cwd="/",
        )
        said.seek(0)
        assert done.returncode == 0, f"{' '.join(command)}: {said.read()[-2000:]}"
