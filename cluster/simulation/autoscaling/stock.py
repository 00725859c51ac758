"""Ray Serve's own autoscaling policy, written again from what Ray 2.60 documents and computes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StockConfig:
    """Ray Serve's `autoscaling_config` with its defaults."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    look_back_period_s: float = 30.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


class StockPolicy:
    """`decide` is asked every control period with the requests that are running or queued.

    Source: Ray 2.60, `serve/autoscaling_policy.py`: the number wanted is
    `running * (total_requests / running) / target_ongoing_requests`, rounded up after the scaling
    factors (1); the total is the mean over `look_back_period_s`; a number must be wanted
    continuously for the delay; at zero replicas a request starts one at once.
    """

    def __init__(self, config: StockConfig) -> None:
        self._config = config
        self._seen: deque[tuple[float, int]] = deque()
        self._up_since_s: float | None = None
        self._down_since_s: float | None = None

    def decide(self, at_s: float, *, num_ongoing: int, num_running: int, num_target: int) -> int:
        config = self._config
        self._seen.append((at_s, num_ongoing))
        while self._seen[0][0] < at_s - config.look_back_period_s:
            self._seen.popleft()
        total = sum(count for _, count in self._seen) / len(self._seen)
        if num_running == 0:
            return max(1, num_target) if num_ongoing else self._bounded(num_target)
        wanted = self._bounded(math.ceil(total / config.target_ongoing_requests))
        if wanted > num_target:
            self._down_since_s = None
            self._up_since_s = at_s if self._up_since_s is None else self._up_since_s
            if at_s - self._up_since_s + 1e-6 >= config.upscale_delay_s:
                self._up_since_s = None
                return wanted
        elif wanted < num_target:
            self._up_since_s = None
            self._down_since_s = at_s if self._down_since_s is None else self._down_since_s
            if at_s - self._down_since_s + 1e-6 >= config.downscale_delay_s:
                self._down_since_s = None
                return max(wanted, min(1, num_target - 1))
        else:
            self._up_since_s = self._down_since_s = None
        return num_target

    def _bounded(self, num: int) -> int:
        return min(max(num, self._config.min_replicas), self._config.max_replicas)
