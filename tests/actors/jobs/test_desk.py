"""The desk when its hands are slow or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.jobs.desk import UNFORESEEN, JobDesk, JobsSetup, ServedVariant
from cluster.config.squadron import SquadronConfig
from cluster.control.jobs.job import Reservation
from tests.actors.jobs.places import LocalHands, Remote, make_store

MLP = ServedVariant(name="mlp", version="1")
PROFILE = {"kind": "profile", "model": "mlp", "num_calls": 1}


class Quick:
    """A process whose job is done at once; `ends` before it has ended."""

    def __init__(self, ends: asyncio.Event) -> None:
        self.ends = ends
        self.is_over = False

    async def start(self, *_: object) -> None:
        return

    async def next(self) -> list[dict[str, Any]]:
        return [{"step": "count"}, {"result": b"{}"}]


@dataclass(slots=True)
class SlowHands(LocalHands):
    """`faults`: raised by the next calls of `process`. A process ends when `may_end` is set."""

    faults: list[Exception] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    made: list[Quick] = field(default_factory=list)

    def process(self, reserved: Reservation) -> Any:
        if self.faults:
            raise self.faults.pop()
        self.made.append(Quick(self.may_end))
        return Remote(self.made[-1])

    async def end(self, process: Any) -> None:
        await self.may_end.wait()
        process.of.is_over = True


def make_desk(folder: Path, hands: LocalHands) -> tuple[JobDesk, Callable[[], Awaitable[str]]]:
    """And how a profile of its `mlp` is asked for: the job's id."""
    config = SquadronConfig.model_validate({"variants": {"mlp": {"source": "mlp"}}})
    setup = JobsSetup(config=config, store=make_store(folder), is_controlled=False)
    desk = JobDesk("test", hands)

    async def ask() -> str:
        return str((await desk.submit(setup, MLP, PROFILE, b"{}", None))["id"])

    return desk, ask


async def state_of(desk: JobDesk, job_id: str) -> str:
    return str((await desk.job(job_id))[0]["state"])


async def until(desk: JobDesk, job_id: str, *states: str) -> None:
    while await state_of(desk, job_id) not in states:  # noqa: ASYNC110  # a desk tells nobody
        await asyncio.sleep(0.01)


async def test_what_nobody_foresaw_fails_its_job_and_not_those_after_it(tmp_path: Path) -> None:
    hands = SlowHands(tmp_path, faults=[RuntimeError("of a library")])
    hands.may_end.set()
    desk, ask = make_desk(tmp_path, hands)

    first, second = await ask(), await ask()
    await until(desk, second, "succeeded", "failed")

    told = (await desk.job(first))[0]
    assert (told["state"], told["error"]) == (
        "failed", {"type": "EngineFailed", "message": UNFORESEEN},
    )  # fmt: skip
    assert await state_of(desk, second) == "succeeded"
    desk.watching.cancel()


async def test_a_job_that_is_done_is_not_torn_apart_by_those_who_cancel_it(tmp_path: Path) -> None:
    hands = SlowHands(tmp_path)
    desk, ask = make_desk(tmp_path, hands)

    job_id, next_id = await ask(), await ask()
    await until(desk, job_id, "running")
    while not (await desk.job(job_id))[0]["steps"]:  # noqa: ASYNC110  # a desk tells nobody
        await asyncio.sleep(0.01)
    cancels = [asyncio.create_task(desk.cancel(job_id)) for _ in range(3)]
    done, _ = await asyncio.wait(cancels, timeout=0.05)
    states = [await state_of(desk, each) for each in (job_id, next_id)]
    hands.may_end.set()
    answers = await asyncio.gather(*cancels)

    assert not done, "its process has not ended"
    assert states == ["running", "queued"], "one at a time"
    assert [each["state"] for each in answers] == ["succeeded"] * 3
    assert hands.made[0].is_over
    await until(desk, next_id, "succeeded")
    desk.watching.cancel()
