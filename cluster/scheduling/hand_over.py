"""Whether a request that has to wait at a door will be answered in time.

While the window of rows under way is full, a window's worth of rows comes back in the time that
one hand-over takes (Little's law), whatever shares the replicas with this door. That time is all
that has to be measured here.
"""

from __future__ import annotations

from cluster.scheduling.admission import Admit, Reject
from cluster.scheduling.batch_cost import DEVIATION_GAIN, GAIN, NUM_DEVIATIONS


class HandOvers:
    """Moving mean and mean deviation of the time from a batch's hand-over to its answer."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self._deviation_s = 0.0

    def observe(self, seconds: float) -> None:
        """A batch was answered after so long."""
        if self.mean_s == 0.0:
            self.mean_s = seconds
            return
        error = seconds - self.mean_s
        self.mean_s += GAIN * error
        self._deviation_s += DEVIATION_GAIN * (abs(error) - self._deviation_s)

    def admit(
        self, *, rows_ahead: int, rows_under_way: int, window_rows: int, left_s: float
    ) -> Admit | Reject:
        """For a request with `left_s` until its deadline and `rows_ahead` waiting before it.

        With nothing under way nobody is refused: a run is how a wrong mean is put right.
        """
        windows = rows_ahead / window_rows
        if rows_under_way >= window_rows:
            # The rows under way were handed over at different times: on average half is left.
            windows += 0.5
        estimated_s = (windows + 1) * self.mean_s + NUM_DEVIATIONS * self._deviation_s
        if estimated_s <= left_s or not rows_under_way:
            return Admit(estimated_s=estimated_s)
        return Reject(
            reason=f"{rows_ahead} rows are ahead: the answer would take {estimated_s:.3g} s, "
            f"{max(left_s, 0.0):.3g} s are left",
            retry_after_s=max(1, round(estimated_s - left_s)),
        )
