"""A caller leaves an envelope that others share: a door's dispatcher here, the replica in a process
of its own, the socket between them real."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from actors.delivery.dispatch import Dispatcher, Ticket
from actors.delivery.node_link import NodeLinks
from actors.delivery.withdrawals import Withdrawals
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.scheduling.policy import BatchPolicy
from cluster.tensors import tensor


class Linked:
    """To the replicas whose sockets are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.links = NodeLinks(folder, rescan_s=0.0)

    async def send(self, calls: Sequence[Call], withdrawals: Withdrawals) -> list[Reply]:
        link = await self.links.least_busy()
        assert link is not None
        return decode_replies(await link.exchange(encode_calls(calls), withdrawals))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110  (another process does it)
            await asyncio.sleep(0.02)


async def test_the_replica_does_not_compute_for_who_has_left(tmp_path: Path) -> None:
    (tmp_path / "go").write_text("0")
    seen, socket = tmp_path / "seen", tmp_path / "links" / "a.sock"
    program = [sys.executable, "-m", "tests.actors.delivery.witness_process"]
    process = await asyncio.create_subprocess_exec(*program, str(tmp_path), str(socket))
    try:
        await until(socket.exists)
        transport = Linked(socket.parent)
        to = Dispatcher(
            transport,
            BatchPolicy(max_batch_size=4),
            window_rows=8,
            on_retry=lambda count: None,
            on_refusal=lambda reason: None,
        )
        answered: list[list[float]] = []

        def ask(*values: float) -> Ticket:
            x = tensor("x", np.array(values, np.float32).reshape(-1, 1))
            return to.submit(
                Call(call_id=0, rows=len(values), left_s=0.0, inputs=(x,)),
                deadline_s=asyncio.get_running_loop().time() + 200,
                done=lambda reply: answered.append(reply.outputs[0].array.ravel().tolist()),
            )

        ask(1, 2, 3, 4)
        await until(lambda: seen.exists() and seen.read_text() == "1 2 3 4\n")
        # In one turn of the loop, so in one envelope.
        tickets = [ask(value) for value in (10, 11, 12)]
        await until(lambda: to.rows_under_way == 7)
        tickets[1].cancel()
        await asyncio.sleep(0)  # the frame is on its way before the engine may go on
        (tmp_path / "go").write_text("9")
        await until(lambda: len(answered) == 3)
        transport.links.close()
    finally:
        process.kill()
        await process.wait()

    assert seen.read_text() == "1 2 3 4\n10 12\n"
    assert answered == [[1, 2, 3, 4], [10], [12]]
