"""How many replicas keep the wait short enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist


def replicas_for(
    *, rate: float, service_s: float, wait_s: float, miss_share: float, variability: float
) -> int:
    """The fewest replicas at which at most `miss_share` of the requests wait longer than `wait_s`.

    `service_s`: of one request in one replica. `variability`: (ca² + cs²) / 2, half the sum of the
    squared coefficients of variation of arrivals and service: 1 for Poisson and exponential, 0.5
    for Poisson and constant.

    Source: Erlang's C formula for the probability of a wait, and its exponential tail at the rate
    of the heavy-traffic (Kingman, Allen-Cunneen) approximation:
    P(W > t) = C(n, a) exp(-(n - a) t / (service_s * variability)).
    """
    load = rate * service_s
    if load <= 0:
        return 0
    num = max(1, math.ceil(load + 1e-9))
    blocked = _erlang_b(num, load)
    while True:
        spare = num - load
        if spare > 0:
            waits = blocked / (1 - (load / num) * (1 - blocked))
            tail = math.exp(-spare * max(0.0, wait_s) / (service_s * max(variability, 0.05)))
            if waits * tail <= miss_share:
                return num
        num += 1
        blocked = load * blocked / (num + load * blocked)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullBatch:
    """The largest batch that may be waited for: its rows, and what it takes."""

    rows: int
    seconds: float

    @property
    def row_s(self) -> float:
        return self.seconds / self.rows


def full_batch(batch_s: Mapping[int, float], limit_s: float) -> FullBatch | None:
    """The largest batch that takes at most `limit_s`, on the line between the measured sizes; None
    where none of more than one row does, or where a row costs no less in company."""
    points = sorted(batch_s.items())
    best: FullBatch | None = None
    for (rows, seconds), (more, longer) in pairwise(points):
        slope = (longer - seconds) / (more - rows)
        fits = more if longer <= limit_s else rows + math.floor((limit_s - seconds) / slope)
        if fits > max(rows, 1) and seconds <= limit_s:
            best = FullBatch(rows=fits, seconds=seconds + slope * (fits - rows))
    if best is None or best.row_s >= points[0][1] / points[0][0]:
        return None
    return best


def replicas_for_batches(
    *, rate: float, batch: FullBatch, miss_share: float, dispersion: float
) -> int:
    """The fewest replicas at which the rows that come while a full batch runs fit into the next
    one, but for `miss_share` of the times: then nobody waits for more than one batch.

    `rate`: rows a second; `dispersion`: variance over mean of their counts (1: Poisson). The counts
    are taken as normal: x + z sqrt(dispersion x) <= rows, for x rows a batch on average.
    """
    spread = NormalDist().inv_cdf(1 - miss_share) * math.sqrt(max(dispersion, 0.05))
    root = (math.sqrt(spread * spread + 4 * batch.rows) - spread) / 2
    return math.ceil(rate * batch.seconds / (root * root))


def _erlang_b(num: int, load: float) -> float:
    """The probability that all of `num` are busy, where nobody waits: by its stable recursion."""
    blocked = 1.0
    for each in range(1, num + 1):
        blocked = load * blocked / (each + load * blocked)
    return blocked
