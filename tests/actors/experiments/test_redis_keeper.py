"""The controller's state in a real redis-server: kept, followed, dead."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from actors.experiments.kept import Event, Kept, Newest
from actors.experiments.redis_keeper import RedisKeeper
from cluster.config.cache import RedisConfig
from cluster.config.experiment import ExperimentConfig
from cluster.experiments.report import Rated
from cluster.experiments.state import begin
from tests.actors.caching.real_redis import RedisServer, needs_redis, redis_server
from tests.cluster.experiments.making import arm

pytestmark = needs_redis


def kept(*reasons: str, saved_s: float = 1.0) -> Kept:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}})
    state = begin(config, "digest", 1.0)
    return Kept(
        saved_s=saved_s,
        experiments={"e": state.counted({"a": arm(1, requests=100)}, state.weights)},
        events=tuple(
            Event(at_s=float(i), kind="traffic", subject="e", reason=reason)
            for i, reason in enumerate(reasons)
        ),
    )


def config(url: str) -> RedisConfig:
    # Ample: a machine that stands still for a second is not what these tests are about.
    return RedisConfig(url=url, timeout_s=5.0)


def test_the_next_controller_finds_what_was_kept(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        RedisKeeper(config(server.url), "here").write(kept("first"))

        assert RedisKeeper(config(server.url), "here").read() == kept("first")
        assert RedisKeeper(config(server.url), "elsewhere").read() == Kept()


def test_runs_of_requests_are_kept_by_their_number(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        first = RedisKeeper(config(server.url), "here")
        first.write_run(7, b"\0seven")
        first.write_run(2**60, b"old")
        first.write_run(2**60, b"new")
        first.drop_run(7)

        assert RedisKeeper(config(server.url), "here").runs() == {2**60: b"new"}
        assert RedisKeeper(config(server.url), "elsewhere").runs() == {}


def test_runs_that_redis_did_not_take_go_with_what_is_written_next(tmp_path: Path) -> None:
    now_s = [0.0]
    with redis_server(tmp_path) as server:
        keeper = RedisKeeper(config(server.url), "here", clock=lambda: now_s[0])
        keeper.write_run(7, b"seven")
    keeper.write_run(8, b"eight")
    keeper.write_run(9, b"nine")
    keeper.drop_run(9)
    assert keeper.runs() == {}

    with redis_server(tmp_path):
        keeper.write(kept("while it is left alone"))
        assert keeper.runs() == {}
        now_s[0] += 3600.0
        keeper.write(kept("one"))
        assert keeper.runs() == {8: b"eight"}


def test_each_value_of_feedback_is_in_a_stream_once(tmp_path: Path) -> None:
    def rated(request_id: str) -> Rated:
        return Rated(experiment="e", arm="a", request_id=request_id, value=0.5, at_s=3.0)

    def told(server: RedisServer) -> list[object]:
        entries = server.client().xrange("squadron:experiments:here:feedback")
        return [json.loads(fields[b"feedback"]) for _, fields in entries]  # type: ignore[union-attr]

    now_s = [0.0]
    with redis_server(tmp_path) as server:
        keeper = RedisKeeper(config(server.url), "here", clock=lambda: now_s[0])
        keeper.rated([rated("one"), rated("two")])
        keeper.write(kept())
        keeper.write(kept())
        found = told(server)
    keeper.rated([rated("while it was away")])
    keeper.write(kept())
    now_s[0] += 3600.0
    with redis_server(tmp_path) as server:
        keeper.write(kept())
        later = told(server)

    assert found == [asdict(rated("one")), asdict(rated("two"))]
    assert later == [asdict(rated("while it was away"))]


def test_each_event_is_in_the_stream_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        first = RedisKeeper(config(server.url), "here")
        first.write(kept("one"))
        first.write(kept("one", "two"))
        second = RedisKeeper(config(server.url), "here")
        second.read()
        second.write(kept("one", "two", "three"))

        found = server.client().xrange("squadron:experiments:here:events")

    reasons = [json.loads(fields[b"event"])["reason"] for _, fields in found]  # type: ignore[union-attr]
    assert reasons == ["one", "two", "three"]


def test_a_dead_redis_keeps_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    now_s = [0.0]
    with redis_server(tmp_path) as server:
        keeper = RedisKeeper(config(server.url), "here", clock=lambda: now_s[0])
        keeper.write(kept("one"))

    keeper.write(kept("one", "two"))

    assert keeper.read() == Kept()


def test_the_newest_of_several_counts(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        old, new = (RedisKeeper(config(server.url), place) for place in ("old", "new"))
        old.write(kept(saved_s=1.0))
        new.write(replace(kept(), saved_s=2.0))

        assert Newest(old, new).read().saved_s == 2.0
