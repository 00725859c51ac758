"""The simulator of the search: one clock a group, one look at each call, no events.

It is exact for first come, first served, one request at a time, where stages keep the order and the
slowest stage sets the pace. Source: AlpaServe's `simulate_requests`.
"""

from __future__ import annotations

from cluster.placement.search.candidate import Candidate, Evaluation
from cluster.simulation.cluster.trace import Trace


class FastSimulator:
    """Callable with a candidate. A call goes to the group whose first stage is free the earliest,
    and is refused where its answer would be late. `request_s`: outside the devices."""

    def __init__(self, trace: Trace, *, request_s: float = 0.0) -> None:
        self._trace = trace
        self._calls = trace.calls
        self._request_s = request_s

    def __call__(self, candidate: Candidate) -> Evaluation:
        choices = _choices(candidate, self._trace.num_models)
        clocks = [0.0] * len(candidate.groups)
        busy = [0.0] * len(candidate.groups)
        served = [0] * self._trace.num_models
        waited_s = 0.0
        request_s = self._request_s
        for now_s, model, slo_s in self._calls:
            options = choices[model]
            if not options:
                continue
            best = options[0]
            free_s = clocks[best[0]]
            for option in options:
                if free_s <= now_s:
                    break
                if clocks[option[0]] < free_s:
                    best = option
                    free_s = clocks[option[0]]
            group, total_s, slowest_s = best
            starts_s = free_s if free_s > now_s else now_s
            took_s = starts_s - now_s + total_s + request_s
            if took_s <= slo_s:
                clocks[group] = starts_s + slowest_s
                busy[group] += slowest_s
                served[model] += 1
                waited_s += took_s
        num_served = sum(served)
        counts = self._trace.counts
        return Evaluation(
            attainment=num_served / len(self._trace) if len(self._trace) else 1.0,
            mean_latency_s=waited_s / num_served if num_served else 0.0,
            num_requests=counts,
            unserved=tuple(count - done for count, done in zip(counts, served, strict=True)),
            busy_s=tuple(busy),
        )


def _choices(candidate: Candidate, num_models: int) -> list[list[tuple[int, float, float]]]:
    found: list[list[tuple[int, float, float]]] = [[] for _ in range(num_models)]
    for index, (group, models) in enumerate(zip(candidate.groups, candidate.hosted, strict=True)):
        times = candidate.times[group.kind]
        for model in models:
            pair = times[model]
            if pair is not None:
                found[model].append((index, *pair))
    return found
