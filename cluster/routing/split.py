"""Which variant of an experiment answers a request."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A variant's share. Weights are relative: 90 and 10 mean the same as 9 and 1."""

    variant: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    variant: str
    reason: str


def choose_arm(arms: tuple[Arm, ...], *, experiment: str, key: str, draw: float) -> Choice:
    """The arm for a request: by `key` when there is one, else by `draw` (uniform in [0, 1)).

    A key always meets the same arm, in every process and after a restart. When weights change,
    only the users whose arm gained or lost weight move, and no more of them than the weights say.

    Source: weighted rendezvous hashing (Schindelhauer and Schomaker 2005, "Weighted distributed
    hash tables"): each arm draws -ln(h) / weight from a hash h of (experiment, arm, key); the
    smallest wins, which happens with probability weight / total.
    """
    live = [arm for arm in arms if arm.weight > 0]
    if key:
        best = min(live, key=lambda arm: (_score(experiment, arm, key), arm.variant))
        return Choice(variant=best.variant, reason="sticky by key")
    target = draw * sum(arm.weight for arm in live)
    for arm in live:
        target -= arm.weight
        if target < 0:
            return Choice(variant=arm.variant, reason="drawn by weight")
    return Choice(variant=live[-1].variant, reason="drawn by weight")


def _score(experiment: str, arm: Arm, key: str) -> float:
    text = "\0".join((experiment, arm.variant, key)).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(uniform) / arm.weight
