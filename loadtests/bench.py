"""Squadron beside its peers, in one run on one machine.

    python -m loadtests.bench --quick
    python -m loadtests.bench --plan half-hour
    python -m loadtests.bench --work identity,minilm-int8 --peers mosec,triton --json

Starts `serve_configs/bench.yaml` on free ports, measures it at each level and load, starts one peer
after the other (each in an environment of its own under `loadtests/.peers`) and measures both in
turns. Writes `loadtests/report/`: README.md, summary.json, run.json and the plots.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtests.machine import fingerprint
from loadtests.peers.table import PEERS
from loadtests.plan import FULL, PLANS, QUICK, Plan
from loadtests.servers import Running, ServerFailed, squadron, squadron_target
from loadtests.suite import Suite, point
from loadtests.works import WORKS, Work
from loadtests.wrk import wrk_rate

REPORT = Path(__file__).with_name("report")
ENSEMBLES = ("identity-split", "identity-chain")


def measure(plan: Plan, works: list[Work], peers: list[str], seed: int) -> dict[str, Any]:
    """Everything asked for. Raises: ServerFailed when Squadron itself does not start."""
    with tempfile.TemporaryDirectory(prefix="squadron-bench-") as folder:
        scratch = Path(folder)
        suite = Suite(plan, scratch, seed)
        suite.say(f"{plan.name}: starting Squadron")
        found: dict[str, Any] = {"machine": fingerprint(), "plan": plan.name, "works": {}}
        with squadron(scratch / "squadron") as running:
            found["squadron"] = running.version
            try:
                _measure_all(suite, running, works, peers, found)
            except KeyboardInterrupt:
                # What was measured so far is worth a report.
                suite.failures["the run"] = "interrupted; what came after this was not measured"
            found["machine_after"] = fingerprint()
        found["failures"] = suite.failures
        return found


def _measure_all(
    suite: Suite, running: Running, works: list[Work], peers: list[str], found: dict[str, Any]
) -> None:
    """Fills `found` as it goes."""
    config = suite.scratch / "squadron" / "bench.yaml"
    found["works"] = {work.name: {"peers": {}} for work in works}
    for work in works:
        _own_figures(suite, running, work, config, found["works"][work.name])
    if any(work.name == "identity" for work in works):
        _identity_figures(suite, running, found)
    for name in peers:
        for work in works:
            with suite.step(f"{work.name}: beside {name}"):
                figures = suite.peer(PEERS[name], work, running)
                found["works"][work.name]["peers"][name] = figures


def _own_figures(
    suite: Suite, running: Running, work: Work, config: Path, found: dict[str, Any]
) -> None:
    """Squadron alone with one piece of work."""
    target = squadron_target(running, work)
    with suite.step(f"{work.name}: throughput against latency"):
        suite.warm(running, target)
        found["sweep"] = suite.sweep(running, target)
    if "sweep" not in found:
        return
    capacity = max(each["ok_per_s"] for each in found["sweep"])
    alone_ms = found["sweep"][0]["quantiles_ms"]["p50"]["ms"]
    found["p50_c1_ms"] = alone_ms
    with suite.step(f"{work.name}: A/A control"):
        found["control"] = suite.control(running, target)
    with suite.step(f"{work.name}: open loop at shares of {capacity:.0f} a second"):
        found["loads"] = suite.loads(running, target, capacity)
    with suite.step(f"{work.name}: levels"):
        found["levels"] = suite.levels(running, target, work, config)
    if work.name in ("identity", "minilm-int8"):
        with suite.step(f"{work.name}: binary against JSON"):
            found["encodings"] = suite.encodings(running, work)
    with suite.step(f"{work.name}: goodput against offered load"):
        found["overloads"] = suite.overloads(running, work, capacity, max(50.0, 30 * alone_ms))
        found["recovery_s"] = suite.recovery(target, alone_ms)


def _identity_figures(suite: Suite, running: Running, found: dict[str, Any]) -> None:
    """What is measured with the identity model only: L4, another process, gRPC, memory, wrk."""
    work = WORKS["identity"]
    figures = found["works"]["identity"]
    for name in ENSEMBLES:
        with suite.step(f"identity: L4, {name}"):
            target = squadron_target(running, work, model=name)
            suite.warm(running, target)
            figures[name] = [
                point(suite.closed(running, target, num, suite.plan.block_s), connections=num)
                for num in (1, 64)
            ]
    with suite.step("identity: in another process against in the door's"):
        figures["apart"] = suite.apart(running)
    with suite.step("identity: gRPC beside a bare grpc.aio server"):
        figures["grpc"] = suite.grpc(running)
    with suite.step("identity: wrk's opinion"):
        target = squadron_target(running, work)
        figures["wrk_per_s"] = wrk_rate(target, 64, suite.plan.block_s, suite.scratch)
    with suite.step(f"identity: memory over {suite.plan.soak_requests} requests"):
        figures["soak"] = suite.soak(running)


def main() -> None:
    asked = _arguments()
    plan = QUICK if asked.quick else PLANS[asked.plan]
    if asked.again:
        found = json.loads((REPORT / "run.json").read_text())
    else:
        try:
            found = measure(plan, [WORKS[name] for name in asked.work], asked.peers, asked.seed)
        except ServerFailed as error:
            sys.exit(f"Squadron did not start: {error}")
    from loadtests.report import write_report

    summary = write_report(found, REPORT if asked.report is None else asked.report)
    if asked.json:
        print(json.dumps(summary))
    else:
        print(((asked.report or REPORT) / "README.md").read_text())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours; rough")
    parser.add_argument("--plan", choices=list(PLANS), default=FULL.name, help="how long")
    parser.add_argument("--work", type=_names(WORKS), default=list(WORKS), help=", ".join(WORKS))
    parser.add_argument("--peers", type=_names(PEERS), default=list(PEERS), help=", ".join(PEERS))
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and block order")
    parser.add_argument("--report", type=Path, help=f"where to write (default: {REPORT.name}/)")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    parser.add_argument("--again", action="store_true", help="rewrite the report of the last run")
    return parser.parse_args()


def _names(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name and name != "none"]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    main()
