"""A process that holds itself to its limits: real processes, nice values, cores and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = """
    import os, sys, time
    from pathlib import Path
    from actors.process_limits import ProcessGuard
    from cluster.config.variant import ProcessLimits

    guard = ProcessGuard(ProcessLimits.model_validate({limits}))
    guard.hold(threads={threads}, folder=Path("{folder}"))
    print(os.nice(0), *sorted(os.sched_getaffinity(0)), flush=True)
    {then}
"""


def start(
    folder: Path, root: Path, limits: dict[str, object], *, threads: int = 1, then: str = "pass"
) -> subprocess.Popen[str]:
    code = textwrap.dedent(CODE).format(
        limits=limits, threads=threads, folder=folder / "cores", then=then
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_process_is_as_nice_as_it_is_told(tmp_path: Path, root: Path) -> None:
    said, _ = start(tmp_path, root, {"nice": 7}).communicate(timeout=60)

    assert said.split()[0] == str(os.nice(0) + 7)


def test_only_the_process_over_its_memory_is_ended(tmp_path: Path, root: Path) -> None:
    greedy = start(
        tmp_path, root, {"memory_limit_mb": 300}, then="b = bytearray(2**29); time.sleep(60)"
    )
    modest = start(tmp_path, root, {"memory_limit_mb": 300}, then="sys.stdin.read()")

    _, complaint = greedy.communicate(timeout=60)

    assert greedy.returncode == -signal.SIGKILL
    assert "limits.memory_limit_mb is 300" in complaint
    assert modest.poll() is None
    modest.communicate("", timeout=60)
    assert modest.returncode == 0


def test_only_the_process_over_its_cores_is_ended(tmp_path: Path, root: Path) -> None:
    """The mean of ten seconds counts. The limit is low: a busy machine gives no more."""
    limits: dict[str, object] = {"cpu_limit": 0.05}
    greedy = start(tmp_path, root, limits, then="while True: pass")
    modest = start(tmp_path, root, limits, then="sys.stdin.read()")

    _, complaint = greedy.communicate(timeout=200)

    assert greedy.returncode == -signal.SIGKILL
    assert "cores for 10 s; limits.cpu_limit is 0.05" in complaint
    assert modest.poll() is None
    modest.communicate("", timeout=60)
    assert modest.returncode == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine offers one core only")
def test_each_process_takes_cores_of_its_own_and_all_when_none_is_left(
    tmp_path: Path, root: Path
) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    running = []
    try:
        said = []
        for _ in range(3):
            process = start(tmp_path, root, {"cpu_affinity": cores}, then="sys.stdin.read()")
            running.append(process)
            assert process.stdout is not None
            said.append([int(core) for core in process.stdout.readline().split()[1:]])
    finally:
        for process in running:
            process.communicate("", timeout=60)

    assert said == [[cores[0]], [cores[1]], cores]


def test_a_core_that_is_not_there_is_named(tmp_path: Path, root: Path) -> None:
    _, complaint = start(tmp_path, root, {"cpu_affinity": [9999]}).communicate(timeout=60)

    assert "limits.cpu_affinity names cores [9999]" in complaint
