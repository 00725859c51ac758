"""What a door says of its queues, with a real dispatcher before a replica that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from actors.delivery.dispatch import Dispatcher
from actors.delivery.queue_tally import QueueTally
from actors.request_tally import RequestTally
from cluster.observability.metrics import aggregate, make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.scheduling.policy import BatchPolicy, LevelPolicy
from cluster.tensors import tensor


class _Silent:
    """Takes envelopes and answers none until it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        await self.open.wait()
        return [Reply(call_id=call.call_id) for call in calls]


def _call(rows: int) -> Call:
    x = tensor("x", np.zeros((rows, 1), np.float32))
    return Call(call_id=0, rows=rows, left_s=0.0, inputs=(x,))


async def test_waiting_rows_and_refusals_are_told_by_variant_and_reason(tmp_path: Path) -> None:
    tally = QueueTally(make_metrics(tmp_path).door)
    replica = _Silent()
    queue = Dispatcher(
        replica,
        BatchPolicy(max_batch_size=4, level=LevelPolicy(max_queue_size=2)),
        window_rows=4,
        on_retry=lambda count: None,
        on_refusal=partial(tally.refuse, "v"),
    )
    answered: list[Reply] = []
    is_over = asyncio.Event()

    def done(reply: Reply) -> None:
        answered.append(reply)
        if len(answered) == 4:
            is_over.set()

    later_s = asyncio.get_running_loop().time() + 60

    def submit(rows: int, deadline_s: float = later_s) -> None:
        queue.submit(_call(rows), deadline_s=deadline_s, done=done)

    submit(4)
    await asyncio.sleep(0)
    submit(3)
    submit(2)
    submit(1)
    await asyncio.sleep(0)
    tally.refuse("", "in_flight")
    tally.write([("v", queue)])
    busy = aggregate(tmp_path).decode().splitlines()
    replica.open.set()
    await is_over.wait()
    await asyncio.sleep(0)
    tally.write([("v", queue)])
    idle = aggregate(tmp_path).decode().splitlines()

    assert 'squadron_door_rows_waiting{variant="v"} 5.0' in busy
    assert 'squadron_door_rows_under_way{variant="v"} 4.0' in busy
    assert 'squadron_door_refused_total{reason="queue_full",variant="v"} 1.0' in busy
    assert 'squadron_door_refused_total{reason="in_flight",variant=""} 1.0' in busy
    assert 'squadron_door_rows_waiting{variant="v"} 0.0' in idle
    assert 'squadron_door_rows_under_way{variant="v"} 0.0' in idle
    assert 'squadron_door_refused_total{reason="queue_full",variant="v"} 1.0' in idle


async def test_a_request_whose_time_is_over_is_a_refusal(tmp_path: Path) -> None:
    reasons: list[str] = []
    queue = Dispatcher(
        _Silent(),
        BatchPolicy(max_batch_size=4, level=LevelPolicy(max_queue_size=2)),
        window_rows=4,
        on_retry=lambda count: None,
        on_refusal=reasons.append,
    )
    answered = asyncio.Event()
    now_s = asyncio.get_running_loop().time()
    queue.submit(_call(1), deadline_s=now_s + 0.01, done=lambda reply: answered.set())
    await answered.wait()

    assert reasons == ["deadline"]


async def test_a_variant_that_is_gone_has_nothing_waiting(tmp_path: Path) -> None:
    tally = QueueTally(make_metrics(tmp_path).door)

    class _Full:
        rows_under_way = 2
        rows_waiting = 7

    tally.write([("gone", _Full())])
    tally.write([])

    assert 'squadron_door_rows_waiting{variant="gone"} 0.0' in aggregate(tmp_path).decode()


async def test_a_door_whose_model_is_stuck_says_so_without_being_asked(tmp_path: Path) -> None:
    tally = RequestTally(make_metrics(tmp_path), in_flight=lambda: 1)
    is_written, is_written_again = asyncio.Event(), asyncio.Event()

    def written() -> None:
        (is_written_again if is_written.is_set() else is_written).set()

    tally.flush_with(written)
    tally.wake()
    await is_written_again.wait()

    assert "squadron_requests_in_flight 1.0" in aggregate(tmp_path).decode()
