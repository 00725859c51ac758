"""`python -m loadtests.language.prefixes`: prefix routing against power of two, simulated.

The production router (`cluster.routing.prefix`) on a trace of chats that share system prompts, over
replicas with an exact model of a prefix cache: an LRU of blocks of bounded size. Prefill costs a
token each what is not cached, decoding what the answer has. Figures are simulated.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from dataclasses import dataclass, field

from cluster.config.language import settings
from cluster.routing.prefix import PrefixRouter, prefix_keys

BLOCK_CHARS = 128
CHARS_PER_TOKEN = 4
PREFILL_TOKENS_PER_S = 2000.0
DECODE_S = 0.02
ANSWER_TOKENS = 32


@dataclass(slots=True)
class Replica:
    """`free_s`: when its prefill is done with what it has; one at a time."""

    capacity: int
    cache: OrderedDict[str, None] = field(default_factory=OrderedDict)
    free_s: float = 0.0

    def compute(self, keys: tuple[str, ...], num_chars: int, now_s: float) -> tuple[float, int]:
        """When the first token is there, and how many blocks were cached."""
        hits = 0
        for key in keys:
            if key not in self.cache:
                break
            hits += 1
        for key in keys:
            self.cache[key] = None
            self.cache.move_to_end(key)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)
        fresh = (num_chars - hits * BLOCK_CHARS) / CHARS_PER_TOKEN
        self.free_s = max(self.free_s, now_s) + fresh / PREFILL_TOKENS_PER_S
        return self.free_s, hits


def run(policy: str, *, num_replicas: int, seed: int) -> tuple[float, float, float]:
    """Hit rate, mean and 95th-percentile time to the first token in seconds."""
    draw = random.Random(seed)
    systems = ["".join(draw.choices("abcdefgh ", k=2048)) for _ in range(24)]
    router = PrefixRouter(settings.RoutingConfig.model_validate({"policy": policy}))
    replicas = {f"r{i}": Replica(capacity=12 * 16) for i in range(num_replicas)}
    work = dict.fromkeys(replicas, 0.0)
    ends: list[tuple[float, str, float]] = []
    now_s, hits, blocks = 0.0, 0, 0
    waits = []
    for _ in range(4000):
        now_s += draw.expovariate(5.0 * num_replicas)
        while ends and ends[0][0] <= now_s:
            _, name, cost = heapq.heappop(ends)
            work[name] -= cost
        # Zipf-like: a few system prompts have most of the traffic.
        system = systems[min(int(draw.paretovariate(0.7)) - 1, len(systems) - 1)]
        text = system + "".join(draw.choices("abcdefgh ", k=draw.randrange(64, 512)))
        keys = prefix_keys(text, BLOCK_CHARS)
        cost = len(text) / CHARS_PER_TOKEN + ANSWER_TOKENS
        chosen = router.choose(keys, work, cost=cost, draws=(draw.random(), draw.random())).replica
        router.sent(keys, chosen, work)
        first_s, found = replicas[chosen].compute(keys, len(text), now_s)
        work[chosen] += cost
        heapq.heappush(ends, (first_s + ANSWER_TOKENS * DECODE_S, chosen, cost))
        hits += found
        blocks += len(keys)
        waits.append(first_s - now_s)
    waits.sort()
    return hits / blocks, sum(waits) / len(waits), waits[int(0.95 * len(waits))]


def main() -> None:
    print("simulated: 4,000 chats, 24 system prompts of 512 tokens, caches of 12 of them each")
    for num_replicas in (2, 4):
        for policy in ("power_of_two", "least_work", "prefix"):
            rate, mean_s, p95_s = run(policy, num_replicas=num_replicas, seed=1)
            print(
                f"{num_replicas} replicas {policy:13} hits {rate:6.1%}  "
                f"TTFT mean {mean_s * 1e3:6.1f} ms  p95 {p95_s * 1e3:6.1f} ms"
            )


if __name__ == "__main__":
    main()
