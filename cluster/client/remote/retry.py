"""Whether a call that failed is sent again, and when."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import ConfigError

RETRIED = (429, 502, 503)
"""Too many requests, a dead end on the way, no room or no replica just now. A deadline that passed
(504) and a model that failed (500) are answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Waits double from `first_wait_s` to `max_wait_s`; a server that names a wait is believed.

    Models that Squadron serves have no side effects, so a call whose connection broke is sent again
    as well.
    """

    max_retries: int = 3
    first_wait_s: float = 0.05
    max_wait_s: float = 5.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ConfigError(
                f"retries is {self.max_retries}; allowed: 0 and more",
                key="retries",
                value=self.max_retries,
            )

    def wait_s(
        self, attempt: int, *, status: int | None, told_s: float | None, draw: float
    ) -> float | None:
        """Seconds until attempt `attempt + 2`; None: the answer stands.

        `status` None: the connection could not be made or broke. `draw` in [0, 1) spreads callers
        that failed at the same moment over the second half of the wait.
        """
        if attempt >= self.max_retries or (status is not None and status not in RETRIED):
            return None
        if told_s is not None:
            return min(told_s, self.max_wait_s)
        longest: float = min(self.max_wait_s, self.first_wait_s * 2**attempt)
        return longest * (0.5 + draw / 2)
