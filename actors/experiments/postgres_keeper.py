"""The controller's state, events and feedback in a PostgreSQL, where other programs can ask.

One thread writes what came since the last time, in bulk and in one transaction; nobody waits for
it, and a PostgreSQL that is slow or dead costs memory up to a bound, nothing else. What must not
be lost at all is in Ray's store and the file as well (`actors.experiments.kept`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from psycopg import Cursor, sql
from psycopg.errors import DataError, Error
from psycopg_pool import ConnectionPool, PoolTimeout

from actors.experiments.kept import Event, Kept, dumped, parsed
from cluster.config.cache import POSTGRES_SCHEMES, PostgresConfig
from cluster.config.security.references import resolve_address
from cluster.experiments.report import Rated

logger = logging.getLogger("squadron.controller")

TABLES = """
CREATE TABLE IF NOT EXISTS {state} (
    place text PRIMARY KEY, saved_s double precision NOT NULL, content jsonb NOT NULL
);
CREATE TABLE IF NOT EXISTS {events} (
    place text NOT NULL, at_s double precision NOT NULL, kind text NOT NULL, subject text NOT NULL,
    reason text NOT NULL, PRIMARY KEY (place, at_s, kind, subject)
);
CREATE INDEX IF NOT EXISTS {events_of} ON {events} (subject, at_s);
CREATE TABLE IF NOT EXISTS {feedback} (
    place text NOT NULL, experiment text NOT NULL, request_id text NOT NULL, arm text NOT NULL,
    value double precision NOT NULL, at_s double precision NOT NULL,
    PRIMARY KEY (place, experiment, request_id)
);
CREATE TABLE IF NOT EXISTS {asked} (
    place text NOT NULL, run bigint NOT NULL, content bytea NOT NULL, PRIMARY KEY (place, run)
);
CREATE INDEX IF NOT EXISTS {feedback_of} ON {feedback} (experiment, arm, at_s);
"""
READ = "SELECT content::text FROM {state} WHERE place = %s"
WRITE_STATE = """
INSERT INTO {state} AS known VALUES (%s, %s, %s) ON CONFLICT (place)
DO UPDATE SET saved_s = excluded.saved_s, content = excluded.content
WHERE known.saved_s <= excluded.saved_s
"""
ADD_EVENTS = "INSERT INTO {events} VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
ADD_FEEDBACK = "INSERT INTO {feedback} VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"


READ_RUNS = "SELECT run, content FROM {asked} WHERE place = %s"
WRITE_RUN = """
INSERT INTO {asked} VALUES (%s, %s, %s)
ON CONFLICT (place, run) DO UPDATE SET content = excluded.content
"""
DROP_RUN = "DELETE FROM {asked} WHERE place = %s AND run = %s"


MAX_WAITING_RUNS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    """What is to be written. `runs`: None for one that is to go."""

    state: Kept | None
    events: list[Event]
    ratings: list[Rated]
    runs: dict[int, bytes | None]


class PostgresKeeper:
    """`place` tells servers apart that share one database."""

    def __init__(self, config: PostgresConfig, place: str) -> None:
        self._config = config
        self._place = place
        self._names = {
            name: sql.Identifier(f"{config.prefix}_{name}")
            for name in ("state", "events", "events_of", "feedback", "feedback_of", "asked")
        }
        self._changed = threading.Condition()
        self._state: Kept | None = None
        self._events: deque[Event] = deque(maxlen=config.max_waiting)
        self._rated: deque[Rated] = deque(maxlen=config.max_waiting)
        self._runs: dict[int, bytes | None] = {}
        self._told: set[Event] = set()
        self._is_made = False
        self._is_open = True
        self._pool = ConnectionPool(
            resolve_address(
                config.url, os.environ, POSTGRES_SCHEMES, key="server.state_postgres.url"
            ),
            min_size=0,
            max_size=config.max_connections,
            timeout=config.timeout_s,
            reconnect_timeout=config.timeout_s,
            # A server that was restarted leaves connections that are only thought to be open.
            check=ConnectionPool.check_connection,
            kwargs={
                # libpq counts in whole seconds, and takes 1 for 2.
                "connect_timeout": max(2, round(config.timeout_s)),
                "options": f"-c statement_timeout={round(config.timeout_s * 1e3)}",
            },
            open=True,
        )
        self._thread = threading.Thread(target=self._run, name="squadron-postgres", daemon=True)
        self._thread.start()

    def read(self) -> Kept:
        """Nothing when PostgreSQL has nothing, or fails."""
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                self._make(cursor)
                row = cursor.execute(self._sql(READ), (self._place,)).fetchone()
        except (Error, PoolTimeout) as error:
            logger.warning("PostgreSQL gave no state: %s", type(error).__name__)
            return Kept()
        self._is_made = True
        found = Kept() if row is None else parsed(row[0].encode())
        self._told = set(found.events)
        return found

    def write(self, kept: Kept) -> None:
        """It is written soon; see `rated`."""
        with self._changed:
            self._state = kept
            self._events.extend(event for event in kept.events if event not in self._told)
            self._told = set(kept.events)
            self._changed.notify()

    def rated(self, ratings: Sequence[Rated]) -> None:
        with self._changed:
            self._rated.extend(ratings)
            self._changed.notify()

    def runs(self) -> Mapping[int, bytes]:
        """None when PostgreSQL has none, or fails."""
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                self._make(cursor)
                rows = cursor.execute(self._sql(READ_RUNS), (self._place,)).fetchall()
        except (Error, PoolTimeout) as error:
            logger.warning("PostgreSQL gave no requests: %s", type(error).__name__)
            return {}
        return dict(cast("list[tuple[int, bytes]]", rows))

    def write_run(self, number: int, content: bytes) -> None:
        """It is written soon, as all else."""
        self._tell_run(number, content)

    def drop_run(self, number: int) -> None:
        self._tell_run(number, None)

    def _tell_run(self, number: int, content: bytes | None) -> None:
        with self._changed:
            self._runs.pop(number, None)
            self._runs[number] = content
            # While PostgreSQL is away: what there is of them is in Ray's store and the file.
            while len(self._runs) > MAX_WAITING_RUNS:
                del self._runs[next(iter(self._runs))]
            self._changed.notify()

    def close(self) -> None:
        """Writes what waits, once."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join()
        self._pool.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._is_open and not self._has_news():
                    self._changed.wait()
                news = _News(
                    state=self._state,
                    events=list(self._events),
                    ratings=list(self._rated),
                    runs=self._runs,
                )
                self._state, self._runs = None, {}
                self._events.clear()
                self._rated.clear()
                is_last = not self._is_open
            try:
                self._write(news)
            except DataError as error:
                # It would be refused again, and hold up what comes after it.
                logger.error("PostgreSQL refused some rows for good: %s", error)
            except (Error, PoolTimeout) as error:
                logger.warning("PostgreSQL keeps nothing for now: %s", type(error).__name__)
                self._put_back(news)
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_open, self._config.retry_after_s)
            if is_last:
                return

    def _has_news(self) -> bool:
        return self._state is not None or any((self._events, self._rated, self._runs))

    def _put_back(self, news: _News) -> None:
        with self._changed:
            self._state = self._state or news.state
            self._runs = {**news.runs, **self._runs}
            for waiting, older in ((self._events, news.events), (self._rated, news.ratings)):
                newer = list(waiting)
                waiting.clear()
                waiting.extend([*older, *newer])  # type: ignore[list-item]

    def _write(self, news: _News) -> None:
        place, state = self._place, news.state
        with self._pool.connection() as connection, connection.cursor() as cursor:
            self._make(cursor)
            if state is not None:
                content = dumped(state).decode()
                cursor.execute(self._sql(WRITE_STATE), (place, state.saved_s, content))
            for number, run in news.runs.items():
                if run is None:
                    cursor.execute(self._sql(DROP_RUN), (place, number))
                else:
                    cursor.execute(self._sql(WRITE_RUN), (place, number, run))
            if news.events:
                cursor.executemany(
                    self._sql(ADD_EVENTS),
                    [
                        (place, each.at_s, each.kind, each.subject, each.reason)
                        for each in news.events
                    ],
                )
            if news.ratings:
                cursor.executemany(
                    self._sql(ADD_FEEDBACK),
                    [
                        (place, each.experiment, each.request_id, each.arm, each.value, each.at_s)
                        for each in news.ratings
                    ],
                )
        self._is_made = True

    def _make(self, cursor: Cursor[tuple[str]]) -> None:
        """Committed with what is done after it."""
        if not self._is_made:
            cursor.execute(self._sql(TABLES))

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(**self._names)
