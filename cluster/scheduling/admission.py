"""Whether a request is worth queueing: refuse at once what could only be refused later.

Under overload every second of the engine then goes into work that is done in time, so that
goodput stays at its peak instead of falling. Source: our `Wait + run > left` test is the
predictive admission of Clockwork (OSDI'20) with a measured curve in place of a profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from cluster.scheduling.batch_cost import BatchCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a new request would meet. `rows_ahead` are served before it; `running_s` is what the
    running batch still takes; `num_other_lanes` hold rows that share no batch with most of those
    ahead; `is_idle`: nothing is queued, prepared or running."""

    rows: int
    left_s: float
    rows_ahead: int
    running_s: float
    max_batch_size: int
    num_other_lanes: int = 0
    is_idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """`estimated_s`: until its answer."""

    estimated_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """`retry_after_s`: when the queue will have shrunk enough."""

    reason: str
    retry_after_s: int


def admit(load: Load, curve: BatchCost) -> Admit | Reject:
    """An idle replica leaves it to its queue, which runs some of those that it thinks hopeless:
    that is how a wrong curve is put right."""
    batches_ahead, rest = divmod(load.rows_ahead, load.max_batch_size)
    # Behind a backlog its batch will be full by then, with those that come after it.
    own_rows = load.max_batch_size if batches_ahead else min(load.max_batch_size, rest + load.rows)
    waiting_s = load.running_s + batches_ahead * curve.mean_s(load.max_batch_size)
    # Their rows are counted already; what a batch more costs than its rows is not.
    waiting_s += load.num_other_lanes * curve.mean_s(1)
    estimated_s = waiting_s + curve.safe_s(own_rows)
    if load.is_idle or estimated_s <= load.left_s:
        return Admit(estimated_s=estimated_s)
    return Reject(
        reason=f"{load.rows_ahead} rows are ahead: the answer would take {estimated_s:.3g} s, "
        f"{max(load.left_s, 0.0):.3g} s are left",
        retry_after_s=max(1, ceil(estimated_s - load.left_s)),
    )
