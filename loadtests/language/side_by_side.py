"""Squadron over vLLM beside `vllm serve`: same model, same flags, same machine, in turns.

    python -m loadtests.language.side_by_side --quick         # about 6 minutes
    python -m loadtests.language.side_by_side --json run.json # about 25 minutes, quiet machine
    python -m loadtests.language.side_by_side --control       # `vllm serve` against itself

Closed loop: each of c callers has one stream open. Blocks of some seconds go A B B A or B A A B; a
ratio is the median of the pairs with its bootstrap interval. CPU is of the processes between
socket and engine (door and replica; API server), so it has the front end of vLLM in both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from loadtests.blocks import Comparison, compare
from loadtests.language.asking import Chat, Seen, ask_all
from loadtests.language.servers import Server, start_squadron, start_vllm

GOAL = 0.95
WORDS = tuple("river stone cloud lamp garden winter paper bridge music window".split())  # noqa: SIM905
PER_CALLER = {1: 4, 8: 2, 32: 2}
"""Requests of a caller in one block: some seconds of it on two cores."""


def chats(numbers: Iterator[int], count: int, num_tokens: int) -> list[Chat]:
    """Never the same twice, of the same length for both: no block finds another's prefix."""
    found = []
    for number in itertools.islice(numbers, count):
        words = " ".join(WORDS[(number * 7 + i * 3) % 10] for i in range(24))
        found.append(Chat(text=f"{number:05d}: write about {words}.", num_tokens=num_tokens))
    return found


def block(
    server: Server, concurrency: int, numbers: Iterator[int], num_tokens: int
) -> Callable[[], Seen]:
    """One block against one server."""

    def measure() -> Seen:
        count = concurrency * PER_CALLER.get(concurrency, 2)
        asked = chats(numbers, count, num_tokens)
        front_s, engine_s = server.cpu_s()
        seen = asyncio.run(ask_all(server.address, asked, concurrency))
        after = server.cpu_s()
        seen.front_cpu_s, seen.engine_cpu_s = after[0] - front_s, after[1] - engine_s
        print(f"  c={concurrency} {server.name}: {rate(seen):.1f} tok/s", file=sys.stderr)
        return seen

    return measure


def idle(servers: tuple[Server, Server], sample_s: float = 10.0) -> dict[str, float]:
    """CPU of each front while nobody asks, which a block's CPU a chunk contains: at a few chunks a
    second it is most of it. **Units:** microseconds a second."""
    before = [server.cpu_s()[0] for server in servers]
    time.sleep(sample_s)
    after = [server.cpu_s()[0] for server in servers]
    found = {
        server.name: 1e6 * (late_s - early_s) / sample_s
        for server, early_s, late_s in zip(servers, before, after, strict=True)
    }
    for name, idle_us in found.items():
        print(f"idle  front CPU us/s      {name} {idle_us:9.1f}", flush=True)
    return found


def rate(seen: Seen) -> float:
    return seen.num_tokens / seen.took_s


def first_ms(seen: Seen) -> float:
    return 1e3 * statistics.median(seen.first)


def between_ms(seen: Seen) -> float:
    return 1e3 * statistics.median(seen.between)


def front_us(seen: Seen) -> float:
    """CPU a streamed chunk. Ticks are 10 ms, so never exactly nothing."""
    return 1e6 * max(seen.front_cpu_s, 0.005) / seen.num_chunks


VALUES: dict[str, Callable[[Seen], float]] = {
    "tokens/s": rate,
    "TTFT p50 ms": first_ms,
    "ITL p50 ms": between_ms,
    "front CPU us/chunk": front_us,
}


def report(concurrency: int, names: tuple[str, str], found: Comparison[Seen]) -> dict[str, object]:
    """Prints a line a value; the same as a dictionary."""
    lines: dict[str, object] = {"concurrency": concurrency, "pairs_dropped": found.num_dropped()}
    for name, value in VALUES.items():
        ratio = found.ratio(value)
        ours, theirs = (statistics.median(found.values(side, value)) for side in ("A", "B"))
        print(
            f"c={concurrency:<3} {name:19} {names[0]} {ours:9.1f}   {names[1]} {theirs:9.1f}   "
            f"ratio {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of {ratio.num_pairs}",
            flush=True,
        )
        lines[name] = {names[0]: ours, names[1]: theirs, "ratio": asdict(ratio)}
    met = found.ratio(rate).value >= GOAL
    print(f"c={concurrency:<3} goal {GOAL}: {'met' if met else 'missed'}", flush=True)
    lines["load_1m"] = max(each.load_1m for each in found.blocks)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=6, help="of four blocks each (default 6)")
    parser.add_argument("--quick", action="store_true", help="one unit: four blocks")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--control", action="store_true", help="`vllm serve` twice: what is noise")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print("starting vllm serve …", file=sys.stderr)
        theirs = start_vllm(folder, stack)
        print("starting Squadron …", file=sys.stderr)
        ours = theirs if options.control else start_squadron(folder, stack)
        numbers = itertools.count()
        for server in (ours, theirs):
            warm = chats(numbers, 4, options.new_tokens)
            asyncio.run(ask_all(server.address, warm, 2))
        found: list[dict[str, object]] = [{"idle front CPU us/s": idle((ours, theirs))}]
        for concurrency in options.concurrency:
            compared = compare(
                block(ours, concurrency, numbers, options.new_tokens),
                block(theirs, concurrency, numbers, options.new_tokens),
                num_units=1 if options.quick else options.units,
                seed=concurrency,
            )
            found.append(report(concurrency, (ours.name, theirs.name), compared))
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
