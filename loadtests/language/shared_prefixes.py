"""Prefix routing against power of two: a real Squadron, two vLLM replicas each, chats that share
system prompts.

    python -m loadtests.language.shared_prefixes --quick
    python -m loadtests.language.shared_prefixes --json run.json

The same model stands in one Squadron twice, `by-prefix` and `by-two`, each with two replicas; both
get the same trace in turns. A replica's memory holds some half of all system prompts. Hits are
vLLM's own count of prompt tokens that it found computed. `prefixes` is the same simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.blocks import compare
from loadtests.language.asking import Chat, Seen, ask_all
from loadtests.language.leaving import metric
from loadtests.language.servers import running_squadron
from tests.e2e.running import Running

NUM_SYSTEMS = 24
SYSTEM_WORDS = 360
KV_BYTES = 2**28
"""5,800 tokens of this model in float32."""
BLOCK_TOKENS = 32
"""Whole blocks are found again. The CPU's default of 128 would leave a quarter of such a prompt to
be computed each time, whoever routes."""
CALLERS = 4
WORDS = tuple(
    "river stone cloud lamp garden winter paper bridge music window silver forest letter ocean "  # noqa: SIM905
    "candle mirror harbour thunder meadow copper".split()
)
ARMS = {"by-prefix": "prefix", "by-two": "power_of_two"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of one arm. `hit_rate`: share of prompt tokens that were already computed."""

    seen: Seen
    hit_rate: float


def trace(seed: int, count: int, model: str) -> list[Chat]:
    """A few system prompts have most of the traffic; what a user says is never the same."""
    systems = random.Random(0)
    prompts = [" ".join(systems.choices(WORDS, k=SYSTEM_WORDS)) for _ in range(NUM_SYSTEMS)]
    draw = random.Random(seed)
    chats = []
    for number in range(count):
        chosen = min(int(draw.paretovariate(0.7)) - 1, NUM_SYSTEMS - 1)
        text = f"{seed}-{number}: {' '.join(draw.choices(WORDS, k=12))}"
        chats.append(Chat(system=prompts[chosen], text=text, num_tokens=4, model=model))
    return chats


def change(variants: dict[str, Any]) -> None:
    """The one variant as two arms."""
    assistant = variants.pop("assistant")
    for name, policy in ARMS.items():
        llm = assistant["llm"] | {
            "kv_cache_bytes": KV_BYTES,
            "block_size": BLOCK_TOKENS,
            "max_num_seqs": 8,
            "routing": {"policy": policy},
        }
        variants[name] = {**assistant, "replicas": 2, "llm": llm}


class Arm:
    """Measures blocks of one arm; the n-th block of both is the same trace."""

    def __init__(self, running: Running, name: str, num_chats: int) -> None:
        self._running = running
        self._name = name
        self._num_chats = num_chats
        self._turn = 0

    def measure(self) -> Block:
        self._turn += 1
        host, port = self._running.http_address.split(":")
        before = self._prefix()
        chats = trace(self._turn, self._num_chats, self._name)
        seen = asyncio.run(ask_all((host, int(port)), chats, CALLERS))
        # Replicas pass their engine's numbers on every half second.
        asyncio.run(asyncio.sleep(1.5))
        after = self._prefix()
        rate = (after[0] - before[0]) / max(1.0, after[1] - before[1])
        print(f"  {self._name}: hits {rate:.1%}", file=sys.stderr)
        return Block(seen=seen, hit_rate=rate)

    def _prefix(self) -> tuple[float, float]:
        names = ("squadron_llm_prefix_hits_total", "squadron_llm_prefix_queries_total")
        hits, queries = (metric(self._running, name, self._name) for name in names)
        return hits, queries


VALUES: dict[str, Callable[[Block], float]] = {
    "hit rate": lambda block: block.hit_rate,
    "TTFT p50 ms": lambda block: 1e3 * statistics.median(block.seen.first),
    "TTFT mean ms": lambda block: 1e3 * statistics.fmean(block.seen.first),
    "TTFT p95 ms": lambda block: 1e3 * sorted(block.seen.first)[int(0.95 * len(block.seen.first))],
    "chats/s": lambda block: len(block.seen.first) / block.seen.took_s,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=4, help="of four blocks each (default 4)")
    parser.add_argument("--chats", type=int, default=48, help="of a block (default 48)")
    parser.add_argument("--quick", action="store_true", help="one unit: four blocks")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print("starting Squadron with four engines …", file=sys.stderr)
        running = running_squadron(folder, stack, change)
        arms = [Arm(running, name, options.chats) for name in ARMS]
        for arm in arms:
            arm.measure()  # caches fill
        found = compare(
            arms[0].measure,
            arms[1].measure,
            num_units=1 if options.quick else options.units,
            seed=1,
        )
        lines: dict[str, object] = {}
        for name, value in VALUES.items():
            ratio = found.ratio(value)
            ours, theirs = (statistics.median(found.values(side, value)) for side in ("A", "B"))
            print(
                f"{name:13} prefix {ours:8.2f}   power of two {theirs:8.2f}   ratio "
                f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of {ratio.num_pairs}"
            )
            lines[name] = {"prefix": ours, "power_of_two": theirs, "ratio": asdict(ratio)}
        if options.json:
            options.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
