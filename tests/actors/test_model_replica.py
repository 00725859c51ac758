"""One replica without Ray: a fake engine behind a gate, envelopes in, envelopes out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import prometheus_client.values
import pytest

from actors.delivery.withdrawals import Withdrawals
from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.variant import BatchingConfig
from cluster.engines.engine import EngineSetup
from cluster.engines.fake import FakeEngine
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.tensors import Array, tensor
from tests.contracts.tiny_models import card


class GatedEngine(FakeEngine):
    """y = 2 * x + 1, one batch at a time when the gate is open; remembers the batches."""

    def __init__(self, setup: EngineSetup) -> None:
        super().__init__(setup)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[float]] = []

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.batches.append(inputs["x"][:, 0].tolist())
        assert self.gate.wait(10)
        return super().infer(inputs)


class Replica(ModelReplica):
    """Its engine computes when the gate is open."""

    engine: GatedEngine

    async def close(self) -> None:
        self.engine.gate.set()
        await super().close()


Make = Callable[..., Replica]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    made: list[Replica] = []

    def build(**batching: object) -> Replica:
        setup = ReplicaSetup(
            variant="v",
            card=card(),
            folder=tmp_path,
            engine="fake",
            device="cpu",
            threads=1,
            is_processed=True,
            batching=BatchingConfig.model_validate(batching),
        )
        engine = GatedEngine(EngineSetup(card=setup.card, folder=tmp_path))
        engine.load()
        replica = Replica(setup, metrics_at=tmp_path / "metrics", make_ready=lambda _: engine)
        replica.engine = engine
        made.append(replica)
        return replica

    yield build
    for replica in made:
        await replica.close()


def call(number: int, *, left_s: float = 30.0, priority: int = 0, tenant: str = "") -> Call:
    x = tensor("x", np.full((1, 4), number, np.float32))
    return Call(
        call_id=number, rows=1, left_s=left_s, inputs=(x,), priority=priority, tenant=tenant
    )


async def ask(replica: Replica, *calls: Call) -> list[Reply]:
    return decode_replies(await replica.infer(encode_calls(calls)))


async def busy(replica: Replica, number: int = 99) -> asyncio.Task[list[Reply]]:
    """The engine computes one request and the gate is shut: all that follows queues."""
    replica.engine.gate.clear()
    task = asyncio.create_task(ask(replica, call(number)))
    await until(lambda: len(replica.engine.batches) == 1)
    return task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        # The engine computes in a thread, which sets no event of the loop.
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def queued(replica: Replica, count: int) -> None:
    await until(lambda: len(replica._scheduler) == count)


async def test_an_envelope_is_one_batch_and_every_call_has_its_own_rows(make: Make) -> None:
    replica = make(max_batch_size=8)

    replies = await ask(replica, call(1), call(2), call(3))

    assert [reply.outputs[0].array.tolist() for reply in replies] == [
        [[3] * 4],
        [[5] * 4],
        [[7] * 4],
    ]
    assert replica.engine.batches == [[1, 2, 3]]


async def test_what_queued_while_the_engine_was_busy_leaves_together(make: Make) -> None:
    replica = make(max_batch_size=8)
    first = await busy(replica)
    tasks = [asyncio.create_task(ask(replica, call(n))) for n in (1, 2, 3)]
    await queued(replica, 3)

    replica.engine.gate.set()
    await asyncio.gather(first, *tasks)

    assert replica.engine.batches == [[99], [1, 2, 3]]


async def test_an_engine_that_waits_for_others_leaves_the_loop_free(make: Make) -> None:
    replica = make(mode="off")
    await ask(replica, call(1))
    # It computes as little as before, but what it asks has become slow.
    replica.engine._delay_s = 0.03
    for number in range(2, 20):
        await ask(replica, call(number))

    for number in range(20, 30):
        replica.engine.gate.clear()
        task = asyncio.create_task(ask(replica, call(number)))
        await until(lambda: replica.engine.batches[-1] == [number])  # noqa: B023 - awaited here
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        replica.engine.gate.set()
        assert (await task)[0].error is None


async def test_a_higher_level_overtakes_what_is_queued(make: Make) -> None:
    replica = make(max_batch_size=2, priority_levels=2, default_priority_level=2)
    first = await busy(replica)
    tasks = [asyncio.create_task(ask(replica, call(n))) for n in (1, 2)]
    await queued(replica, 2)
    tasks.append(asyncio.create_task(ask(replica, call(3, priority=1))))
    await queued(replica, 3)

    replica.engine.gate.set()
    await asyncio.gather(first, *tasks)

    assert replica.engine.batches == [[99], [3, 1], [2]]


async def test_tenants_take_turns(make: Make) -> None:
    replica = make(max_batch_size=2)
    first = await busy(replica)
    flood = asyncio.create_task(ask(replica, *(call(n, tenant="flood") for n in range(1, 5))))
    await queued(replica, 4)
    late = asyncio.create_task(ask(replica, call(7, tenant="late")))
    await queued(replica, 5)

    replica.engine.gate.set()
    await asyncio.gather(first, flood, late)

    assert replica.engine.batches == [[99], [1, 7], [2, 3], [4]]


async def test_a_call_whose_caller_is_gone_is_not_run(make: Make) -> None:
    replica = make(max_batch_size=1)
    first = await busy(replica)
    gone = asyncio.create_task(ask(replica, call(1)))
    stays = asyncio.create_task(ask(replica, call(2)))
    await queued(replica, 2)

    gone.cancel()
    await queued(replica, 1)
    replica.engine.gate.set()
    await asyncio.gather(first, stays)

    assert replica.engine.batches == [[99], [2]]


async def test_one_call_of_an_envelope_whose_caller_is_gone_is_not_run(make: Make) -> None:
    replica = make(max_batch_size=4)
    first = await busy(replica)
    withdrawals = Withdrawals()
    envelope = encode_calls([call(1), call(2), call(3)])
    shared = asyncio.create_task(replica.infer(envelope, withdrawals))
    await queued(replica, 3)

    withdrawals.add(2)
    await queued(replica, 2)
    replica.engine.gate.set()
    replies = decode_replies(await shared)
    await first

    assert replica.engine.batches == [[99], [1, 3]]
    assert [(reply.call_id, reply.error is None) for reply in replies] == [
        (1, True), (2, False), (3, True),
    ]  # fmt: skip


async def test_a_call_withdrawn_before_it_is_prepared_is_neither_prepared_nor_run(
    make: Make,
) -> None:
    replica = make(max_batch_size=4)
    first = await busy(replica)
    withdrawals = Withdrawals()
    withdrawals.add(1)
    shared = asyncio.create_task(replica.infer(encode_calls([call(1), call(2)]), withdrawals))
    await queued(replica, 1)
    replica.engine.gate.set()
    await asyncio.gather(first, shared)

    assert replica.engine.batches == [[99], [2]]


async def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(make: Make) -> None:
    replica = make(max_batch_size=1)
    first = await busy(replica)

    late = asyncio.create_task(ask(replica, call(1, left_s=1e-9)))
    await queued(replica, 1)
    replica.engine.gate.set()
    [reply] = await late
    await first

    assert reply.error is not None
    assert reply.error.http_status == 504
    assert reply.error.message == (
        "Request timeout expired: the deadline passed while it was queued"
    )
    assert replica.engine.batches == [[99]]


async def test_a_call_that_the_queue_ahead_would_make_late_is_refused_at_once(make: Make) -> None:
    replica = make(max_batch_size=1)
    replica._scheduler.costs.observe(None, 1, 10.0)
    first = await busy(replica)

    [reply] = await ask(replica, call(1, left_s=12.0))

    assert reply.error is not None
    assert (reply.error.http_status, type(reply.error).__name__) == (504, "DeadlineExceeded")
    assert (reply.error.retry_after_s or 0) >= 1
    replica.engine.gate.set()
    await first


async def test_a_full_level_refuses_and_the_other_level_does_not(make: Make) -> None:
    replica = make(
        max_batch_size=1,
        priority_levels=2,
        default_priority_level=2,
        priority_queue_policy={2: {"max_queue_size": 1}},
    )
    first = await busy(replica)
    waiting = asyncio.create_task(ask(replica, call(1)))
    await queued(replica, 1)

    [refused] = await ask(replica, call(2))
    urgent = asyncio.create_task(ask(replica, call(3, priority=1)))
    await queued(replica, 2)
    replica.engine.gate.set()
    await asyncio.gather(first, waiting, urgent)

    assert refused.error is not None
    assert refused.error.message == "Exceeds maximum queue size (1)"
    assert replica.engine.batches == [[99], [3], [1]]


async def test_off_runs_each_request_by_itself(make: Make) -> None:
    replica = make(mode="off", max_batch_size=8)

    await ask(replica, call(1), call(2))

    assert replica.engine.batches == [[1], [2]]


async def test_one_call_that_cannot_be_read_does_not_spoil_its_companions(make: Make) -> None:
    replica = make(max_batch_size=8)
    wrong = Call(call_id=5, rows=1, left_s=9.0, inputs=(tensor("z", np.zeros((1, 4), np.float32)),))

    replies = await ask(replica, call(1), wrong)

    assert replies[0].error is None
    assert replies[1].error is not None
    assert replies[1].error.http_status == 400


async def test_what_batches_take_is_told_for_the_sizes_that_ran(make: Make) -> None:
    replica = make(max_batch_size=8)
    assert replica.batch_s() == {}

    for size in (1, 3, 4, 6):
        await ask(replica, *[call(number) for number in range(size)])

    await until(lambda: 6 in replica.batch_s())  # told once the batch's replies are out
    told = replica.batch_s()
    assert sorted(told) == [1, 4, 6]
    assert all(seconds > 0 for seconds in told.values())
    assert replica.tally.num_rows == 1 + 3 + 4 + 6


async def test_where_nothing_is_batched_no_cost_of_batches_is_told(make: Make) -> None:
    replica = make(mode="off", max_batch_size=8)
    await ask(replica, call(1), call(2))

    assert replica.batch_s() == {}
