"""`make conformance`: every suite, one after the other, with a table at the end.

Environments of other people's clients are made under `tests/conformance/.environments` (and the
real Triton under `loadtests/.peers`) the first time. Names of suites choose those; other arguments
go to pytest.

    python -m tests.conformance
    python -m tests.conformance checklist clients
    python -m tests.conformance clients -k shared_memory
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).resolve().parent
SUITES = {
    "checklist": "the protocol line by line: routes, RPCs, numbers, callers that leave, web pages",
    "openai": "OpenAI's client against both language engines, and both against Hugging Face",
    "clients": "what Triton's example clients do, with tritonclient",
    "others": "kserve's clients; schemathesis on /openapi.json",
    "imported": "the same Triton repository, served by Triton 2.51 and imported",
    "differential": "the same requests to the real Triton 2.51: equal or a listed deviation",
    "arrivals": "a million arrivals in virtual time: priorities, deadlines, fairness, overload",
    "sharding": "shards in processes: every family, placement, transport and way to be lost",
    "fleet": "nodes as pods on this machine: drained, killed, a head away, scraped",
    "changes": "doors and replicas replaced under load, over every kind of connection",
    "control": "models loaded, unloaded and replaced while requests run, over both transports",
    "hostile": "codecs under atheris; slow, endless and lying callers over real sockets",
}
ELSEWHERE = {
    "arrivals": FOLDER.parent / "cluster" / "simulation" / "test_one_replica.py",
    "sharding": FOLDER.parent / "e2e" / "sharding",
    "fleet": FOLDER.parent / "e2e" / "fleet",
    "changes": FOLDER.parent / "e2e" / "test_rolling.py",
    "control": FOLDER.parent / "e2e" / "test_repository_control.py",
}
"""Suites that `make test` runs too, in small."""

NO_TESTS = 5
"""pytest's exit status when `-k` leaves nothing of a suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one suite came to. `skips`: why tests were skipped, each reason once."""

    name: str
    passed: int
    failed: int
    skips: tuple[str, ...]
    took_s: float
    is_broken: bool


def main() -> int:
    if {"-h", "--help"}.intersection(sys.argv[1:]):
        print(f"{__doc__}\nsuites:")
        for name, what in SUITES.items():
            print(f"  {name:14}{what}")
        return 0
    chosen = [name for name in sys.argv[1:] if name in SUITES]
    options = [option for option in sys.argv[1:] if option not in SUITES]
    results = []
    for name in chosen or SUITES:
        print(f"== {name}: {SUITES[name]}", flush=True)
        results.append(_run(name, options))
    print("\nsuite          passed  failed  skipped  took")
    for each in results:
        took = f"{each.took_s:5.0f} s"
        print(f"{each.name:14}{each.passed:7}{each.failed:8}{len(each.skips):9}{took}")
        for reason in dict.fromkeys(each.skips):
            print(f"    skipped: {reason}")
    return int(any(each.failed or each.is_broken for each in results))


def _run(name: str, options: list[str]) -> Result:
    began_s = time.monotonic()
    with TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(ELSEWHERE.get(name, FOLDER / name)),
            f"--junitxml={report}",
        ]
        done = subprocess.run(
            [*command, "-q", "-rfE", "--timeout=600", "-o", "console_output_style=count", *options],
            env={**os.environ, "SQUADRON_CONFORMANCE": "1", "SQUADRON_ARRIVALS": "1000000"},
        )
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        skips, num_failed, num_all = [], 0, 0
        for case in cases:
            num_all += 1
            num_failed += case.find("failure") is not None or case.find("error") is not None
            if (skip := case.find("skipped")) is not None:
                skips.append(skip.get("message", ""))
    return Result(
        name=name,
        passed=num_all - num_failed - len(skips),
        failed=num_failed,
        skips=tuple(skips),
        took_s=time.monotonic() - began_s,
        is_broken=done.returncode not in (0, 1, NO_TESTS),
    )


if __name__ == "__main__":
    sys.exit(main())
