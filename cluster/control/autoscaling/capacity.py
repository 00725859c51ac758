"""How many replicas keep the wait short enough."""

from __future__ import annotations

import math


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


def _erlang_b(num: int, load: float) -> float:
    """The probability that all of `num` are busy, where nobody waits: by its stable recursion."""
    blocked = 1.0
    for each in range(1, num + 1):
        blocked = load * blocked / (each + load * blocked)
    return blocked
