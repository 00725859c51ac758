"""The dispatcher against a transport that is a Python object: exact, no Ray."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
import pytest

from actors.delivery.dispatch import MAX_ATTEMPTS, Dispatcher
from actors.delivery.ticket import weight_of
from actors.delivery.transport import Transport
from actors.delivery.withdrawals import Withdrawals
from cluster.errors import DeadlineExceeded, EngineFailed, InvalidRequest, Overloaded, ShardLost
from cluster.protocols.envelope import Call, Reply
from cluster.scheduling.policy import BatchPolicy, LevelPolicy
from cluster.tensors import bytes_array, tensor


class Doubling:
    """Answers y = 2 * x. `dies` says for each envelope whether the replica dies first."""

    def __init__(self, dies: Callable[[list[Call]], bool] = lambda calls: False) -> None:
        self.seen: list[list[Call]] = []
        self.values: list[list[float]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._dies = dies

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        self.seen.append(list(calls))
        self.values.append([float(c.inputs[0].array[0, 0]) for c in calls])
        await self.open.wait()
        if self._dies(list(calls)):
            raise ShardLost("a replica died")
        return [
            Reply(call_id=c.call_id, outputs=(tensor("y", 2 * c.inputs[0].array),)) for c in calls
        ]


def call(value: float, rows: int = 1, *, priority: int = 0, tenant: str = "") -> Call:
    x = tensor("x", np.full((rows, 1), value, np.float32))
    return Call(call_id=0, rows=rows, left_s=0.0, inputs=(x,), priority=priority, tenant=tenant)


def dispatcher(
    transport: Transport,
    *,
    window: int = 8,
    batch: int = 4,
    max_waiting: int = 100,
    levels: int = 0,
) -> tuple[Dispatcher, list[int]]:
    retries: list[int] = []
    policy = BatchPolicy(
        max_batch_size=batch,
        level=LevelPolicy(max_queue_size=max_waiting),
        priority_levels=levels,
        default_priority_level=levels,
    )
    return (
        Dispatcher(
            transport,
            policy,
            window_rows=window,
            on_retry=retries.append,
            on_refusal=lambda reason: None,
        ),
        retries,
    )


def values(transport: Doubling) -> list[list[float]]:
    """The envelopes that were sent, each as the values of its calls."""
    return transport.values


async def ask(
    to: Dispatcher, value: float, patience_s: float = 5.0, *, priority: int = 0, tenant: str = ""
) -> float:
    asked = call(value, priority=priority, tenant=tenant)
    reply = await to.run(asked, deadline_s=asyncio.get_running_loop().time() + patience_s)
    return float(reply.outputs[0].array[0, 0])


async def test_requests_of_one_turn_of_the_loop_share_an_envelope() -> None:
    transport = Doubling()
    to, _ = dispatcher(transport)

    answers = await asyncio.gather(*(ask(to, v) for v in (1, 2, 3)))

    assert answers == [2, 4, 6]
    assert [len(calls) for calls in transport.seen] == [3]


async def test_an_envelope_holds_one_batch_and_the_window_bounds_what_is_under_way() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=8, batch=4)

    asked = asyncio.gather(*(ask(to, v) for v in range(20)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [len(calls) for calls in transport.seen] == [4, 4]
    transport.open.set()
    assert await asked == [2 * v for v in range(20)]


async def test_a_dead_replica_costs_a_retry_and_no_request() -> None:
    first_dies = iter([True])
    transport = Doubling(lambda calls: next(first_dies, False))
    to, retries = dispatcher(transport)

    answers = await asyncio.gather(*(ask(to, v) for v in (1, 2, 3)))

    assert answers == [2, 4, 6]
    assert sum(retries) == 3


async def test_a_request_that_kills_what_computes_it_travels_alone_and_is_given_up() -> None:
    def poisoned(calls: list[Call]) -> bool:
        return any(float(c.inputs[0].array[0, 0]) == 13 for c in calls)

    transport = Doubling(poisoned)
    to, _ = dispatcher(transport)

    results = await asyncio.gather(
        *(ask(to, v, patience_s=30) for v in (1, 13, 3)), return_exceptions=True
    )

    assert results[0] == 2
    assert results[2] == 6
    assert isinstance(results[1], ShardLost)
    sends = [sent for sent in transport.values if 13 in sent]
    assert len(sends) == MAX_ATTEMPTS
    assert all(len(sent) == 1 for sent in sends[1:])


async def test_a_deadline_ends_the_wait_whatever_the_replica_does() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport)

    with pytest.raises(DeadlineExceeded):
        await ask(to, 1, patience_s=0.01)
    transport.open.set()
    assert await ask(to, 2) == 4


async def test_requests_whose_caller_is_gone_are_not_sent() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=1, batch=1)
    first = asyncio.create_task(ask(to, 1))
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(ask(to, 2))
    await asyncio.sleep(0.01)

    gone.cancel()
    transport.open.set()
    await first
    await ask(to, 3)

    assert [value for sent in transport.values for value in sent] == [1, 3]


async def test_what_waits_at_the_door_goes_by_priority() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=1, batch=1, levels=3)
    first = asyncio.create_task(ask(to, 0))
    await asyncio.sleep(0.01)
    rest = [
        asyncio.create_task(ask(to, value, priority=priority))
        for value, priority in ((1, 3), (2, 2), (3, 1), (4, 0), (5, 1))
    ]
    await asyncio.sleep(0.01)

    transport.open.set()
    await asyncio.gather(first, *rest)

    assert values(transport) == [[0], [3], [5], [2], [1], [4]]


async def test_tenants_take_turns_at_the_door() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=1, batch=1)
    first = asyncio.create_task(ask(to, 0, tenant="busy"))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(ask(to, value, tenant="busy")) for value in (1, 2, 3)]
    rest += [asyncio.create_task(ask(to, value, tenant="quiet")) for value in (11, 12)]
    await asyncio.sleep(0.01)

    transport.open.set()
    await asyncio.gather(first, *rest)

    assert values(transport) == [[0], [1], [11], [2], [12], [3]]


async def test_what_cannot_be_answered_in_time_is_refused_before_it_is_sent() -> None:
    transport = Doubling()
    to, _ = dispatcher(transport, window=1, batch=1)
    transport.open.clear()
    slow = asyncio.create_task(ask(to, 1))
    await asyncio.sleep(0.2)
    transport.open.set()
    await slow
    transport.open.clear()
    under_way = asyncio.create_task(ask(to, 2))
    await asyncio.sleep(0.01)

    # A hand-over was seen to take 0.2 s: behind one more there is no time for this.
    with pytest.raises(DeadlineExceeded, match="rows are ahead: the answer would take"):
        await ask(to, 3, patience_s=0.1)

    transport.open.set()
    await under_way
    assert values(transport) == [[1], [2]]


class AtOnce:
    """Answers y = x before `send` returns."""

    def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        return [Reply(call_id=c.call_id, outputs=c.inputs) for c in calls]


async def test_replies_that_are_there_at_once_need_no_task() -> None:
    to, _ = dispatcher(AtOnce())

    assert await asyncio.gather(*(ask(to, v) for v in range(9))) == list(range(9))


async def test_a_full_batch_is_answered_before_the_rest_of_its_turn_is_read() -> None:
    to, _ = dispatcher(AtOnce(), batch=4)
    found: list[float] = []
    submitted = []
    for value in range(11):
        num_found = len(found)
        to.submit(
            call(float(value)),
            deadline_s=asyncio.get_running_loop().time() + 5.0,
            done=lambda reply: found.append(float(reply.outputs[0].array[0, 0])),
        )
        submitted.append(len(found) - num_found)
    # With the fifth and the ninth, which are themselves not answered before `submit` returns.
    assert submitted == [0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0]

    await asyncio.sleep(0)
    assert found == list(range(11))


async def test_an_envelope_is_called_back_with_the_last_of_its_callers() -> None:
    class Endless(Doubling):
        num_called_back = 0

        async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
            try:
                return await super().send(calls)
            except asyncio.CancelledError:
                self.num_called_back += 1
                raise

    transport = Endless()
    transport.open.clear()
    to, _ = dispatcher(transport, window=2, batch=2)
    first, second = (asyncio.create_task(ask(to, v)) for v in (1, 2))
    await asyncio.sleep(0.01)

    first.cancel()
    await asyncio.sleep(0.01)
    assert transport.num_called_back == 0
    second.cancel()
    await asyncio.sleep(0.01)

    assert transport.num_called_back == 1
    transport.open.set()
    assert await ask(to, 3) == 6


async def test_a_caller_that_leaves_an_envelope_of_many_is_withdrawn_from_it() -> None:
    class Told(Doubling):
        def __init__(self) -> None:
            super().__init__()
            self.withdrawn: list[list[int]] = []

        async def send(self, calls: Sequence[Call], withdrawals: Withdrawals) -> list[Reply]:
            gone: list[int] = []
            self.withdrawn.append(gone)
            withdrawals.follow(gone.append)
            self.seen.append(list(calls))
            # What a caller leaves behind is given back at once.
            inputs = [call.inputs[0].array for call in calls]
            await self.open.wait()
            return [
                Reply(call_id=call.call_id, outputs=(tensor("y", 2 * x),))
                for call, x in zip(calls, inputs, strict=True)
            ]

    transport = Told()
    transport.open.clear()
    to, _ = dispatcher(transport)
    stays, leaves, other = (asyncio.create_task(ask(to, v)) for v in (1, 2, 3))
    await asyncio.sleep(0.01)

    leaves.cancel()
    await asyncio.sleep(0.01)
    transport.open.set()

    assert await asyncio.gather(stays, other) == [2, 6]
    (sent,) = transport.seen
    assert transport.withdrawn == [[sent[1].call_id]]


async def test_a_call_given_up_in_the_turn_it_was_sent_in_leaves_its_place_to_others() -> None:
    transport = Doubling()
    to, _ = dispatcher(transport, window=1, batch=1)
    loop = asyncio.get_running_loop()
    ticket = to.submit(call(1), deadline_s=loop.time() + 5, done=lambda reply: None)
    # The flush that sends it is the next thing the loop does, and this the one after it.
    loop.call_soon(ticket.cancel)

    assert await ask(to, 2) == 4
    assert to.is_idle


async def test_what_is_past_its_deadline_is_called_back() -> None:
    class Endless(Doubling):
        async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
            try:
                return await super().send(calls)
            except asyncio.CancelledError:
                called_back.set()
                raise

    called_back = asyncio.Event()
    transport = Endless()
    transport.open.clear()
    to, _ = dispatcher(transport)

    with pytest.raises(DeadlineExceeded):
        await ask(to, 1, patience_s=0.01)

    await asyncio.wait_for(called_back.wait(), 5)


async def test_too_many_waiting_are_refused_with_when_to_come_back() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=1, batch=1, max_waiting=2)
    waiting = [asyncio.create_task(ask(to, 0))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.create_task(ask(to, v)) for v in (1, 2)]
    await asyncio.sleep(0.01)

    with pytest.raises(Overloaded) as caught:
        await asyncio.gather(*(ask(to, v) for v in (8, 9)))

    assert caught.value.retry_after_s == 1
    transport.open.set()
    await asyncio.gather(*waiting)


async def test_the_replicas_own_error_reaches_only_its_caller() -> None:
    class Picky(Doubling):
        async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
            return [
                Reply(call_id=c.call_id, error=InvalidRequest("not an image"))
                if c.inputs[0].array[0, 0] == 2
                else Reply(call_id=c.call_id, outputs=(tensor("y", c.inputs[0].array),))
                for c in calls
            ]

    to, _ = dispatcher(Picky())

    results = await asyncio.gather(*(ask(to, v) for v in (1, 2, 3)), return_exceptions=True)

    assert results[0] == 1
    assert isinstance(results[1], InvalidRequest)
    assert results[2] == 3


async def test_a_reply_that_is_no_envelope_fails_its_requests_and_not_the_dispatcher() -> None:
    class Broken(Doubling):
        async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
            replies = await super().send(calls)
            if len(self.seen) == 1:
                raise ValueError("not an envelope")
            return replies

    to, _ = dispatcher(Broken())

    with pytest.raises(EngineFailed, match="answer was lost"):
        await ask(to, 1)
    assert await ask(to, 2) == 4


async def test_a_request_that_ended_leaves_nothing_for_the_collector() -> None:
    transport = Doubling()
    to, _ = dispatcher(transport)
    transport.open.clear()
    loop = asyncio.get_running_loop()
    asked = call(1)
    array = weakref.ref(asked.inputs[0].array)
    gc.disable()
    try:
        with pytest.raises(DeadlineExceeded) as caught:
            await to.run(asked, deadline_s=loop.time() + 0.01)
        error = weakref.ref(caught.value)
        del asked, caught
        transport.seen.clear()
        transport.open.set()
        await ask(to, 2)

        assert error() is None
        assert array() is None
    finally:
        gc.enable()


async def test_a_request_that_waited_and_expired_is_one_refusal() -> None:
    transport = Doubling()
    transport.open.clear()
    seen: list[str] = []
    to = Dispatcher(
        transport,
        BatchPolicy(max_batch_size=1),
        window_rows=1,
        on_retry=lambda count: None,
        on_refusal=seen.append,
    )
    first = asyncio.create_task(ask(to, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(ask(to, 2, patience_s=0.2))
    await asyncio.sleep(0.01)
    assert to.num_waiting == 1  # it waits here, and then goes to the replica
    transport.open.set()
    transport.open = asyncio.Event()
    assert await first == 2

    with pytest.raises(DeadlineExceeded):
        await second

    assert values(transport) == [[1], [2]]
    assert seen == ["deadline"]


async def test_a_replica_is_told_how_long_its_requests_waited_at_the_door() -> None:
    transport = Doubling()
    transport.open.clear()
    to, _ = dispatcher(transport, window=1, batch=1)
    asked = asyncio.gather(ask(to, 1), ask(to, 2))
    await asyncio.sleep(0.05)
    transport.open.set()
    await asked

    (first,), (second,) = transport.seen
    assert second.waited_s >= first.waited_s + 0.04


async def test_a_batch_that_cannot_be_sent_fails_its_requests_and_not_the_dispatcher() -> None:
    class Broken(Doubling):
        is_broken = True

        def send(self, calls: Sequence[Call], *rest: object) -> Awaitable[list[Reply]]:
            if self.is_broken:
                raise RuntimeError("a bug")
            return super().send(calls, *rest)

    transport = Broken()
    to, _ = dispatcher(transport, batch=1)

    outcomes = await asyncio.gather(*(ask(to, v) for v in (1, 2)), return_exceptions=True)
    transport.is_broken = False

    assert [type(each) for each in outcomes] == [EngineFailed, EngineFailed]
    assert "a bug" not in str(outcomes[0])
    assert await ask(to, 3) == 6
    assert to.is_idle


async def test_a_tenant_pays_for_the_tokens_it_sends_also_as_numbers() -> None:
    short = Call(call_id=1, rows=1, left_s=1, inputs=(tensor("ids", np.ones((1, 4), np.int64)),))
    long = Call(call_id=1, rows=1, left_s=1, inputs=(tensor("ids", np.ones((1, 400), np.int64)),))
    text = tensor("text", bytes_array([b"abcdef"], (1,)))
    mixed = Call(call_id=1, rows=1, left_s=1, inputs=(text, tensor("k", np.ones(50, np.int32))))

    assert [weight_of(each) for each in (short, long, mixed)] == [4, 400, text.num_bytes]


async def test_what_waited_in_its_socket_until_too_late_is_refused_unsent() -> None:
    transport = Doubling()
    to, _ = dispatcher(transport)
    now_s = asyncio.get_running_loop().time()
    replies: dict[int, Reply] = {}
    is_computed = asyncio.Event()

    def done(value: int, reply: Reply) -> None:
        replies[value] = reply
        if reply.error is None:
            is_computed.set()

    for value, deadline_s in ((1, now_s - 0.001), (2, now_s + 5), (3, now_s - 5)):
        to.submit(call(value), deadline_s=deadline_s, done=partial(done, value))
    assert replies == {}
    await asyncio.wait_for(is_computed.wait(), 5)

    assert values(transport) == [[2]]
    for value in (1, 3):
        error = replies[value].error
        assert isinstance(error, DeadlineExceeded)
        assert error.retry_after_s == 1
    assert to.is_idle
