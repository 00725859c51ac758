"""Which replica computes a prompt: the one that has computed its beginning, unless it is busy.

Consistent hashing with bounded loads (Mirrokni et al., arXiv 1608.01350) keeps the bound: nobody
takes more than `max_imbalance` times the mean of the work under way. Prefixes are remembered as
hashes of whole blocks, each including the ones before it, so that equal hash means equal beginning.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cluster.config.language.settings import RoutingConfig
from cluster.routing.affinity import rank

MAX_KEYS = 32
"""Blocks of a prompt that are looked at: what two prompts share is at their beginning."""
MAX_HOLDERS = 3
"""Replicas that are remembered for one beginning. A busy one spreads; with one name for it its
traffic would swing from replica to replica, each idle while the other is full."""


def prefix_keys(text: str, block_chars: int) -> tuple[str, ...]:
    """A key for each whole block of the text's beginning; it stands for all up to its end."""
    hashed = hashlib.blake2b(digest_size=8)
    keys = []
    for begin in range(0, min(len(text), MAX_KEYS * block_chars) - block_chars + 1, block_chars):
        hashed.update(text[begin : begin + block_chars].encode("utf-8", "surrogatepass"))
        keys.append(hashed.hexdigest())
    return tuple(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`num_shared`: blocks of the prompt that the replica has seen."""

    replica: str
    num_shared: int
    reason: str


class PrefixRouter:
    """Of one variant at one door. Work counts tokens that replicas were given and still owe."""

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self._seen: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def choose(
        self,
        keys: Sequence[str],
        work: Mapping[str, float],
        *,
        cost: float = 1.0,
        session: str = "",
        draws: tuple[float, float] = (0.0, 0.0),
    ) -> Choice:
        """`work`: what each replica has under way; `cost` what this request adds. `draws` in
        [0, 1) decide for power of two, and between equals."""
        names = sorted(work)
        if self._config.policy == "power_of_two":
            return _better_of_two(names, work, draws)
        bound = self._config.max_imbalance * (sum(work.values()) + cost) / len(names)
        if self._config.policy == "prefix":
            found = self._warm(keys, work, bound)
            if found is not None:
                return found
            if session:
                for name in rank(session, names):
                    if _fits(work[name], bound):
                        return Choice(replica=name, num_shared=0, reason="session")
        least = min(work.values())
        equal = [name for name in names if work[name] == least]
        return Choice(replica=equal[int(draws[0] * len(equal))], num_shared=0, reason="least work")

    def sent(self, keys: Sequence[str], replica: str, there: Collection[str]) -> None:
        """This prompt went to this replica, which has its prefix from now on. `there`: all
        replicas; others are forgotten."""
        for key in keys:
            holders = tuple(name for name in self._seen.get(key, ()) if name in there)
            if replica not in holders:
                # The first stays: it is where all this beginning's traffic goes that fits there.
                holders = (*holders[: MAX_HOLDERS - 1], replica)
            self._seen[key] = holders
            self._seen.move_to_end(key)
        while len(self._seen) > self._config.max_blocks:
            self._seen.popitem(last=False)

    def forget(self, replica: str) -> None:
        """The replica is gone, and what it had computed with it."""
        for key in [key for key, names in self._seen.items() if replica in names]:
            left = tuple(name for name in self._seen[key] if name != replica)
            if left:
                self._seen[key] = left
            else:
                del self._seen[key]

    def _warm(self, keys: Sequence[str], work: Mapping[str, float], bound: float) -> Choice | None:
        """Of those with the longest beginning that are there and not above the bound, the first
        that had it."""
        for count in range(len(keys), 0, -1):
            holders = self._seen.get(keys[count - 1], ())
            for name in holders:
                if name in work and _fits(work[name], bound):
                    return Choice(replica=name, num_shared=count, reason="prefix")
        return None


def _fits(work: float, bound: float) -> bool:
    # A replica that has nothing to do is never above the bound.
    return work == 0 or work <= bound


def _better_of_two(
    names: Sequence[str], work: Mapping[str, float], draws: tuple[float, float]
) -> Choice:
    first = names[int(draws[0] * len(names))]
    others = [name for name in names if name != first] or [first]
    second = others[int(draws[1] * len(others))]
    chosen = min((first, second), key=lambda name: work[name])
    return Choice(replica=chosen, num_shared=0, reason="power of two")
