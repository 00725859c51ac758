"""The controller's state, events and feedback in a real PostgreSQL: kept, asked for, away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from actors.experiments.kept import Event, Kept
from actors.experiments.postgres_keeper import PostgresKeeper
from cluster.config.cache import PostgresConfig
from cluster.config.server import ServerConfig
from cluster.experiments.report import Rated
from tests.actors.experiments.real_postgres import PostgresServer, needs_postgres, postgres_server
from tests.actors.experiments.test_redis_keeper import kept

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture
def config(server: PostgresServer, request: pytest.FixtureRequest) -> PostgresConfig:
    """Tables of the test's own."""
    prefix = f"t{abs(hash(request.node.name)) % 10**9}"
    return PostgresConfig(url=server.url, prefix=prefix, retry_after_s=0.1)


def rows(config: PostgresConfig, table: str, columns: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(config.url) as connection:
        found = connection.execute(f"SELECT {columns} FROM {config.prefix}_{table} ORDER BY at_s")
        return found.fetchall()


def rated(number: int, value: float = 1.0) -> Rated:
    return Rated(experiment="e", arm="a", request_id=f"r{number}", value=value, at_s=float(number))


def test_the_next_controller_finds_what_was_kept(config: PostgresConfig) -> None:
    first = PostgresKeeper(config, "here")
    first.write(kept("first"))
    first.write(kept("first", "second"))
    first.close()
    here, elsewhere = PostgresKeeper(config, "here"), PostgresKeeper(config, "elsewhere")

    assert here.read() == kept("first", "second")
    assert elsewhere.read() == Kept()
    here.close()
    elsewhere.close()


def test_runs_of_requests_are_kept_by_their_number(config: PostgresConfig) -> None:
    first = PostgresKeeper(config, "here")
    first.write_run(7, b"\0seven")
    first.write_run(2**60, b"old")
    first.write_run(2**60, b"new")
    first.drop_run(7)
    first.close()
    here, elsewhere = PostgresKeeper(config, "here"), PostgresKeeper(config, "elsewhere")

    assert here.runs() == {2**60: b"new"}
    assert elsewhere.runs() == {}
    here.close()
    elsewhere.close()


def test_an_older_state_does_not_replace_a_newer_one(config: PostgresConfig) -> None:
    for saved_s in (2.0, 1.0):
        keeper = PostgresKeeper(config, "here")
        keeper.write(kept(saved_s=saved_s))
        keeper.close()
    last = PostgresKeeper(config, "here")

    assert last.read().saved_s == 2.0
    last.close()


def test_each_event_and_each_value_is_one_row_however_often_it_is_told(
    config: PostgresConfig,
) -> None:
    first = PostgresKeeper(config, "here")
    first.write(kept("one"))
    first.write(kept("one", "two"))
    first.rated([rated(number) for number in range(1000)])
    first.rated([rated(7, value=0.0)])
    first.close()
    # A controller that did not read before it wrote tells everything again.
    second = PostgresKeeper(config, "here")
    second.write(kept("one", "two", "three"))
    second.close()

    assert rows(config, "events", "subject, reason") == [
        ("e", "one"),
        ("e", "two"),
        ("e", "three"),
    ]
    values = rows(config, "feedback", "experiment, arm, request_id, value")
    assert len(values) == 1000
    assert values[7] == ("e", "a", "r7", 1.0)


def test_what_came_while_postgresql_was_away_is_written_when_it_is_back(
    server: PostgresServer, config: PostgresConfig
) -> None:
    keeper = PostgresKeeper(replace_timeout(config), "here")
    keeper.write(kept("before"))
    keeper.rated([rated(1)])
    server.stop()
    try:
        keeper.write(kept("before", "while it was away"))
        keeper.rated([rated(2)])
        assert PostgresKeeper(replace_timeout(config), "here").read() == Kept()
    finally:
        server.start()
    keeper.rated([rated(3)])
    eventually(lambda: len(rows(config, "feedback", "request_id")) == 3)
    keeper.close()

    assert [reason for (reason,) in rows(config, "events", "reason")] == [
        "before",
        "while it was away",
    ]
    assert [each for (each,) in rows(config, "feedback", "request_id")] == ["r1", "r2", "r3"]


def test_a_row_that_is_refused_for_good_does_not_hold_up_the_next(config: PostgresConfig) -> None:
    keeper = PostgresKeeper(config, "here")
    bad = Event(at_s=1.0, kind="traffic", subject="e", reason="a text with \0 in it")
    keeper.write(replace(kept(), events=(bad,)))
    keeper.close()
    keeper = PostgresKeeper(config, "here")
    keeper.write(kept("good"))
    keeper.close()

    assert rows(config, "events", "reason") == [("good",)]


@pytest.mark.parametrize("url", ["mysql://here", "localhost:5432"])
def test_an_address_of_something_else_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with postgresql:// or postgres://"):
        ServerConfig.model_validate({"state_postgres": {"url": url}})


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        with contextlib.suppress(psycopg.errors.UndefinedTable):  # they are made with the first row
            if holds():
                return
        time.sleep(0.1)
    raise AssertionError("did not come true")


def replace_timeout(config: PostgresConfig) -> PostgresConfig:
    return config.model_copy(update={"timeout_s": 0.5})
