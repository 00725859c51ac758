"""Where a request's CPU goes in the door: samples of its stacks, by part of the way.

    python -m loadtests.breakdown
    python -m loadtests.breakdown --work identity-1mb --connections 8 --seconds 10 --json

The door runs without Ray (level L2) under a closed loop; py-spy, which Ray brings, looks at it from
outside without stopping it. Shares are of the samples in Python; each sample counts for the
innermost function that belongs to a part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from loadtests.generator import closed_loop
from loadtests.levels import door_alone
from loadtests.servers import ROOT, squadron_target
from loadtests.works import WORKS

SAMPLES_PER_S = 250
PARTS = {
    "socket write": ("HttpConnection.write ",),
    "event loop, epoll, socket read": ("Runner.run ",),
    "head of the answer": ("HttpConnection._send ",),
    "HTTP parsing": ("HttpReader.",),
    "HTTP connection": ("HttpConnection.",),
    "route": ("HttpRoutes.", "QuickInfer.begin "),
    "decoding and checking": ("QuickDecoder.", "decode_infer "),
    "model, limits, deadline, counts": ("FrontDoor.", "call_of "),
    "scheduling": ("Dispatcher.", "deliver ", "_finish ", "BatchQueue.", "Agenda."),
    "joining and splitting the batch": (
        "BatchRunner.",
        "EngineRun.",
        "OnnxRuntimeEngine.",
        "ModelReplica.",
        "MemoryTransport.",
    ),
    "ONNX Runtime": ("Session.run ",),
    "encoding": ("QuickEncoder.", "encode_infer ", "QuickInfer._answered ", "InferRoutes.reply "),
}
OTHER = "other"


def part_of(stack: str) -> str:
    """Of a stack as py-spy writes it: frames from the outermost in, with semicolons between."""
    for frame in reversed(stack.split(";")):
        for part, starts in PARTS.items():
            if frame.startswith(starts):
                return part
    return OTHER


def shares_of(samples: str) -> dict[str, float]:
    """Part -> share of all samples, the largest first. `samples`: lines of "stack count"."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[part_of(stack)] += int(count)
    total = sum(counts.values())
    return {part: count / total for part, count in counts.most_common()}


def measure(work_name: str, *, connections: int, seconds: float, config: Path) -> dict[str, object]:
    """CPU a request in microseconds, and the share of each part.

    Raises: RuntimeError where py-spy is missing or may not look at another process.
    """
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which(
        "py-spy"
    )
    if program is None:
        raise RuntimeError("py-spy is not installed: pip install py-spy")
    work = WORKS[work_name]
    with tempfile.TemporaryDirectory(prefix="squadron-breakdown-") as folder:
        scratch = Path(folder)
        with door_alone(config, work, scratch) as door:
            target, watched = squadron_target(door, work), door.watched()
            closed_loop(target, connections=connections, seconds=1.0, watched=watched)
            undisturbed = closed_loop(
                target, connections=connections, seconds=seconds, watched=watched
            )
            found = scratch / "samples.txt"
            command = [program, "record", "--nonblocking", "--format", "raw"]
            command += ["--rate", str(SAMPLES_PER_S), "--duration", str(max(1, round(seconds)))]
            with subprocess.Popen(
                [*command, "--output", str(found), "--pid", str(door.pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as looking:
                closed_loop(target, connections=connections, seconds=seconds + 1, watched=watched)
                _, said = looking.communicate(timeout=60)
            if not found.exists():
                raise RuntimeError(f"py-spy could not look at the door: {said.strip()[-300:]}")
            shares = shares_of(found.read_text())
    return {
        "work": work_name,
        "connections": connections,
        "requests_per_s": undisturbed.ok_per_s,
        "cpu_us_per_request": undisturbed.cpu_us["server"],
        "shares": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=list(WORKS), default="identity")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--config", type=Path, default=ROOT / "serve_configs" / "bench.yaml")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(
        asked.work, connections=asked.connections, seconds=asked.seconds, config=asked.config
    )
    if asked.json:
        print(json.dumps(found))
        return
    cpu_us, shares = found["cpu_us_per_request"], found["shares"]
    assert isinstance(cpu_us, float)
    assert isinstance(shares, dict)
    print(
        f"{asked.work}, {asked.connections} connections: "
        f"{found['requests_per_s']:,.0f} requests/s, {cpu_us:.1f} us of CPU a request"
    )
    for part, share in shares.items():
        print(f"{share:6.1%}  {share * cpu_us:6.1f} us  {part}")


if __name__ == "__main__":
    main()
