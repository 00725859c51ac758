"""A job's own process: it works, and it leaves nothing when it is ended."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from actors.jobs.process import JobProcess
from actors.jobs.work import Work
from tests.actors.jobs.places import make_store


def work_of(folder: Path, **request: Any) -> Work:
    store = make_store(folder)
    return Work(
        request={"model": "mlp", **request},
        card=store.card("mlp").model_dump_json(),
        folder=str(store.folder("mlp")),
        engine="onnxruntime",
        options={},
        threads=1,
        is_processed=True,
        store=str(store.root),
        kept=str(store.root / ".jobs" / "0123"),
        nice=1,
    )


def memory_place(pid: int) -> int | None:
    """Who goes first when the machine runs out of memory: 1000 before all; None: not told here."""
    file = Path(f"/proc/{pid}/oom_score_adj")
    return int(file.read_text(encoding="ascii")) if file.exists() else None


async def test_a_process_that_is_stopped_goes_with_all_that_it_made(tmp_path: Path) -> None:
    process = JobProcess(tmp_path / "jobs")
    work = work_of(tmp_path, kind="optimize", level="max", num_rounds=100)

    await process.start(work, b"{}", None, 2**20)
    events = await process.next()
    while not events:
        events = await process.next()
    (scratch,) = (tmp_path / "jobs").iterdir()
    assert process._process is not None
    running = psutil.Process(process._process.pid)
    place_in_line = await asyncio.to_thread(memory_place, running.pid)
    await process.stop()

    assert "step" in events[0]
    assert place_in_line in (1000, None)
    assert not running.is_running()
    assert not scratch.exists()
    assert not (tmp_path / "store" / ".jobs" / "0123").exists()


async def test_a_result_that_is_too_large_and_inputs_that_do_not_fit_are_errors(
    tmp_path: Path,
) -> None:
    work = work_of(tmp_path, kind="profile", num_calls=1)
    bad = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}'

    async def ended(body: bytes, max_result_bytes: int) -> tuple[str, str]:
        process = JobProcess(tmp_path / "jobs")
        await process.start(work, body, None, max_result_bytes)
        while True:
            for event in await process.next():
                if "error" in event:
                    await process.stop()
                    return event["error"][0], event["error"][1]
                assert "result" not in event

    large, wrong = await asyncio.gather(ended(b"{}", 10), ended(bad, 2**30))

    assert large[0] == "EngineFailed"
    assert "at most 10" in large[1]
    assert wrong[0] in ("InvalidRequest", "ConfigError")
    assert "64" in wrong[1] or "refuses" in wrong[1]


async def outcome_of(process: JobProcess) -> tuple[str, str]:
    while True:
        for event in await process.next():
            if "error" in event:
                return event["error"][0], event["error"][1]


async def test_a_process_that_is_killed_or_talks_nonsense_is_an_error_at_once(
    tmp_path: Path,
) -> None:
    """And what holders that were killed left behind is removed by the next."""

    class Babbling(JobProcess):
        def _started(self, scratch: Path, work: Work) -> subprocess.Popen[bytes]:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "print('no JSON')"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            return self._process

    work = work_of(tmp_path, kind="optimize", level="max", num_rounds=100)
    (tmp_path / "jobs" / "4194305-orphan").mkdir(parents=True)  # above the largest id on Linux
    (tmp_path / "jobs" / "notes").mkdir()
    killed, babbling = JobProcess(tmp_path / "jobs"), Babbling(tmp_path / "jobs")
    await killed.start(work, b"{}", None, 2**20)
    while not await killed.next():
        pass
    assert killed._process is not None
    killed._process.kill()
    await babbling.start(work, b"{}", None, 2**20)

    assert "was killed; where the machine ran out of memory" in (await outcome_of(killed))[1]
    assert "did not expect" in (await outcome_of(babbling))[1]
    await killed.stop()
    await babbling.stop()
    assert [each.name for each in (tmp_path / "jobs").iterdir()] == ["notes"]


async def test_one_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    class Slow(JobProcess):
        def _made(self, work: Work) -> Path:
            begun.set()
            assert may_go_on.wait(60)
            return super()._made(work)

    begun, may_go_on = threading.Event(), threading.Event()
    process = Slow(tmp_path / "jobs")
    await process.start(work_of(tmp_path, kind="profile"), b"{}", None, 2**20)
    await asyncio.to_thread(begun.wait, 60)
    stopping = asyncio.create_task(process.stop())
    await asyncio.sleep(0.05)
    may_go_on.set()
    await stopping

    assert process._process is not None
    assert process._process.poll() is not None
    assert list((tmp_path / "jobs").iterdir()) == []
