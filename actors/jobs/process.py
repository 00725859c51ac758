"""Where a job runs: an actor on the node that has room for it, which owns the job's process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from actors.jobs.work import INPUTS_FILE, RESULT_FILE, WORK_FILE, Work
from cluster.errors import EngineFailed, SquadronError
from cluster.optimization.remote.mirror import RemoteVersion

logger = logging.getLogger("squadron.jobs")

LONG_POLL_S = 10.0
GRACE_S = 5.0

Event = Mapping[str, Any]
"""`where` it runs; a `step` begun; and one of `result` (bytes) and `error` (type, message) last."""


class JobProcess:
    """For one job. `next` is asked again and again until it gives a result or an error."""

    def __init__(self, parent: Path | None = None) -> None:
        """`parent`: in which its folder is made; the node's own if None."""
        self._parent = parent
        self._body = b""
        self._scratch: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._doing: asyncio.Task[None] | None = None
        self._starting = threading.Lock()
        self._is_stopped = False

    async def start(
        self, work: Work, body: bytes, remote: RemoteVersion | None, max_result_bytes: int
    ) -> None:
        """Returns at once. `body`: of the request, with its tensors. `remote`: where the artefact
        is brought from, for a store at a URI."""
        self._body = body
        doing = self._do(work, remote, max_result_bytes)
        self._doing = asyncio.get_running_loop().create_task(doing)

    async def next(self) -> list[Event]:
        """What happened since the last time; nothing after `LONG_POLL_S` without news."""
        found: list[Event] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONG_POLL_S):
                found.append(await self._events.get())
        while not self._events.empty():
            found.append(self._events.get_nowait())
        return found

    async def stop(self) -> None:
        """End the process and what it started, and remove what it leaves behind."""
        if self._doing is not None:
            self._doing.cancel()
            await asyncio.wait([self._doing])
        # A thread that is just starting it ends no sooner than it has.
        await asyncio.to_thread(self._refuse_to_start)
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                # Its children are in its group, also when it has ended itself.
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(_wait_for, process)
        if self._scratch is not None:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    async def _do(self, work: Work, remote: RemoteVersion | None, max_result_bytes: int) -> None:
        try:
            await self._tell_all(work, remote, max_result_bytes)
        except SquadronError as error:
            self._events.put_nowait({"error": (type(error).__name__, error.message)})
        except OSError as error:
            said = error.strerror or type(error).__name__
            self._events.put_nowait({"error": ("EngineFailed", f"the job cannot run: {said}")})
        except Exception:
            # Whoever waits for its news would wait until the job's timeout.
            logger.exception("the job's process cannot be followed")
            said = "the server did not expect what happened; its log says what"
            self._events.put_nowait({"error": ("EngineFailed", said)})

    async def _tell_all(
        self, work: Work, remote: RemoteVersion | None, max_result_bytes: int
    ) -> None:
        if remote is not None:
            self._events.put_nowait({"step": "bring the model to this node"})
            folder = await asyncio.to_thread(remote.bring)
            work = replace(work, folder=str(folder))
        scratch, process = await asyncio.to_thread(self._begun, work)
        assert process.stdout is not None
        # In threads: Ray's loop is not the main thread's, where alone uvloop can have children.
        while line := await asyncio.to_thread(process.stdout.readline):
            event = orjson.loads(line)
            if "error" in event:
                self._events.put_nowait({"error": tuple(event["error"])})
                return
            if "done" in event:
                result = await asyncio.to_thread((scratch / RESULT_FILE).read_bytes)
                self._events.put_nowait(_checked(result, max_result_bytes))
                return
            self._events.put_nowait(event)
        code = await asyncio.to_thread(process.wait)
        self._events.put_nowait({"error": ("EngineFailed", _ended_by(code))})

    def _refuse_to_start(self) -> None:
        with self._starting:
            self._is_stopped = True

    def _begun(self, work: Work) -> tuple[Path, subprocess.Popen[bytes]]:
        with self._starting:
            if self._is_stopped:
                raise EngineFailed("the job was ended before it began")
            scratch = self._made(work)
            return scratch, self._started(scratch, work)

    def _made(self, work: Work) -> Path:
        parent = self._parent
        if parent is None:
            from actors.node_folder import node_folder

            parent = node_folder() / "jobs"
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_orphans(parent)
        self._scratch = scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        (scratch / "tmp").mkdir()
        (scratch / INPUTS_FILE).write_bytes(self._body)
        self._body = b""  # it may be large, and the job long
        (scratch / WORK_FILE).write_bytes(orjson.dumps(asdict(work)))
        return scratch

    def _started(self, scratch: Path, work: Work) -> subprocess.Popen[bytes]:
        ours = str(Path(__file__).resolve().parents[2])
        known = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            # What it leaves half-made is removed with its folder.
            "TMPDIR": str(scratch / "tmp"),
            "OMP_NUM_THREADS": str(work.threads),
            "PYTHONPATH": f"{ours}{os.pathsep}{known}" if known else ours,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "actors.jobs.work", str(scratch)],
            # It ends when this process does: nothing is ever written to it.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        return self._process


def _remove_orphans(parent: Path) -> None:
    """The folders of holders that were killed."""
    for folder in parent.iterdir():
        pid = folder.name.partition("-")[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            continue  # not ours to remove


def _ended_by(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "the job's process was killed; where the machine ran out of memory the system takes "
            "jobs first: send fewer items, or a smaller batch_size"
        )
    return f"the job's process ended with code {code}; the server's log says why"


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _checked(result: bytes, max_result_bytes: int) -> Event:
    if len(result) <= max_result_bytes:
        return {"result": result}
    message = f"the result takes {len(result)} bytes; at most {max_result_bytes} are kept"
    return {"error": ("EngineFailed", message)}
