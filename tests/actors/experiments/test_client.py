"""Feedback that meets a controller, and one that meets none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from ray.exceptions import RayActorError

from actors.experiments.client import ControllerAway, ControllerClient
from cluster.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    SquadronError,
)
from cluster.experiments.report import Feedback, Post, Report
from tests.actors.experiments.test_failures import under_an_experiment
from tests.actors.listeners.doors import body_of, make_door


class Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


class Controller:
    """Takes reports unless it `is_away`; of each post half of the values are counted."""

    def __init__(self) -> None:
        self.is_away = False
        self.fails: SquadronError | None = None
        self.values: list[Feedback] = []
        self.num_asked = 0
        self.is_hanging = False
        self.report = Method(self._report)
        self.experiments = Method(self._experiments)
        self.autoscaling = Method(self._experiments)

    async def found(self) -> Controller:
        return self

    async def _experiments(self) -> list[dict[str, Any]]:
        self.num_asked += 1
        if self.is_away:
            raise RayActorError
        if self.is_hanging:
            await asyncio.Event().wait()
        return [{"name": "e", "arms": [{"name": "simple", "weight": 7.0}]}]

    async def _report(
        self, door: str, report: Report | None, posts: Sequence[Post]
    ) -> list[int | None]:
        if self.is_away:
            raise RayActorError
        if self.fails is not None:
            raise self.fails
        for post in posts:
            self.values.extend(post.feedback)
        return [len(post.feedback) // 2 if post.experiment == "e" else None for post in posts]


@pytest.fixture
def controller() -> Controller:
    return Controller()


def values(count: int, first: int = 0) -> list[Feedback]:
    return [Feedback(request_id=f"r{first + i}", value=1.0) for i in range(count)]


SHORT_S, LONG_S = 0.05, 3600.0


def connected(folder: Path, controller: Controller, **limits: Any) -> ControllerClient:
    door = make_door(folder)
    return ControllerClient(
        door.front, controller.found, "door", **{"feedback_s": SHORT_S, **limits}
    )


async def test_a_controller_that_is_there_says_what_was_counted(
    tmp_path: Path, controller: Controller
) -> None:
    asked = connected(tmp_path, controller, feedback_s=LONG_S)

    assert await asyncio.gather(asked.rate("e", values(4)), asked.rate("e", values(2, 4))) == [2, 1]
    with pytest.raises(ModelNotFound):
        await asked.rate("gone", values(1, 6))
    controller.fails = InvalidRequest("not so")
    with pytest.raises(InvalidRequest):
        await asked.rate("e", values(1, 7))
    controller.fails = None
    await asked.tell()

    # What it could not take is not brought again for ever.
    assert controller.values == values(7)


async def test_feedback_for_one_that_is_away_is_kept_and_brought_when_it_is_back(
    tmp_path: Path, controller: Controller
) -> None:
    asked = connected(tmp_path, controller)
    controller.is_away = True

    assert await asked.rate("e", values(2)) is None
    # It is known to be away: nobody waits any more.
    asked.feedback_s = LONG_S
    assert await asked.rate("e", values(2, 2)) is None
    controller.is_away = False
    await asked.tell()
    counted = await asked.rate("e", values(2, 4))

    assert counted == 1
    assert controller.values == values(6)


async def test_what_one_telling_could_not_bring_goes_with_the_next(
    tmp_path: Path, controller: Controller
) -> None:
    asked = connected(tmp_path, controller, patience_s=0.1)
    controller.is_away = True

    assert await asked.rate("e", values(3)) is None
    with pytest.raises(SquadronError, match="the controller did not answer") as caught:
        await asked.tell()
    controller.is_away = False
    await asked.tell()

    assert caught.value.retry_after_s == 1
    assert controller.values == values(3)


async def test_what_a_door_keeps_is_bounded(tmp_path: Path, controller: Controller) -> None:
    asked = connected(tmp_path, controller, max_queued=5)
    controller.is_away = True

    assert await asked.rate("e", values(4)) is None
    with pytest.raises(Overloaded, match="4 values of feedback wait here") as caught:
        await asked.rate("e", values(2, 4))
    controller.is_away = False
    await asked.tell()
    asked.feedback_s = LONG_S
    assert await asked.rate("e", values(4, 6)) == 2

    assert caught.value.retry_after_s == 5


async def test_a_caller_is_told_that_its_values_are_queued(
    tmp_path: Path, controller: Controller
) -> None:
    door = make_door(tmp_path)
    under_an_experiment(door)
    asked = door.offered.controller
    asked._get_controller, asked.feedback_s = controller.found, SHORT_S
    path = "/admin/v1/experiments/e/feedback"
    sent = [{"request_id": f"r{i}", "value": 1} for i in range(2)]

    controller.is_away = True
    away = await door.ask("POST", path, sent)
    controller.is_away = False
    await asked.tell()
    asked.feedback_s = LONG_S
    there = await door.ask("POST", path, sent)

    said = {"accepted": 2, "counted": 0, "handed_on": 0, "queued": 2}
    assert (away.status, orjson.loads(body_of(away))) == (202, said)
    assert there.status == 200
    assert orjson.loads(body_of(there)) == {**said, "counted": 1, "handed_on": 1, "queued": 0}


async def test_who_asks_one_that_is_away_hears_it_soon_and_the_next_at_once(
    tmp_path: Path, controller: Controller
) -> None:
    asked = connected(tmp_path, controller, away_s=0.5, patience_s=LONG_S)
    controller.is_away = True

    with pytest.raises(ControllerAway, match="the controller is away") as caught:
        await asked.ask("experiments")
    assert (caught.value.http_status, caught.value.retry_after_s) == (503, 2)
    controller.num_asked = 0
    with pytest.raises(ControllerAway):
        await asked.ask("experiments")
    assert controller.num_asked == 1
    controller.is_away = False

    assert await asked.ask("experiments")


async def test_one_that_comes_back_in_time_is_asked_again(
    tmp_path: Path, controller: Controller
) -> None:
    asked = connected(tmp_path, controller, away_s=LONG_S, patience_s=LONG_S)
    controller.is_away = True

    waiting = asyncio.create_task(asked.ask("experiments"))
    while not controller.num_asked:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    controller.is_away = False

    assert await waiting


async def test_a_controller_that_cannot_be_looked_for_is_away_too(tmp_path: Path) -> None:
    """Where Ray's own control is gone, the look-up does not return."""
    asked = connected(tmp_path, Controller(), away_s=SHORT_S, patience_s=LONG_S)
    asked._get_controller = asyncio.Event().wait

    with pytest.raises(ControllerAway):
        await asked.ask("experiments")


async def test_one_that_does_not_answer_is_waited_for_once(
    tmp_path: Path, controller: Controller
) -> None:
    """It may have much to do, so the first who asks waits; later ones as for one that is away."""
    asked = connected(tmp_path, controller, away_s=SHORT_S, patience_s=SHORT_S)
    controller.is_hanging = True

    with pytest.raises(DeadlineExceeded, match="the controller did not answer"):
        await asked.ask("experiments")
    asked._patience_s = LONG_S
    with pytest.raises(ControllerAway):
        await asked.ask("experiments")
    controller.is_hanging = False

    assert await asked.ask("experiments")


async def test_a_question_is_answered_with_what_the_door_heard_last_and_its_own_weights(
    tmp_path: Path, controller: Controller
) -> None:
    door = make_door(tmp_path)
    under_an_experiment(door)
    asked = door.offered.controller
    asked._get_controller, asked._away_s = controller.found, SHORT_S
    path = "/admin/v1/experiments"
    controller.is_away = True

    unknown = await door.ask("GET", path)
    controller.is_away = False
    there = await door.ask("GET", path)
    controller.is_away = True
    away = await door.ask("GET", path)

    assert (unknown.status, dict(unknown.headers)["Retry-After"]) == (503, "2")
    assert b"the controller is away" in body_of(unknown)
    assert "Age" not in dict(there.headers)
    assert (away.status, int(dict(away.headers)["Age"]) >= 0) == (200, True)
    weight = door.front.table.routes["e"].weights["simple"]  # type: ignore[union-attr]
    assert weight != 7.0
    assert orjson.loads(body_of(away)) == [
        {"name": "e", "arms": [{"name": "simple", "weight": weight}]}
    ]
