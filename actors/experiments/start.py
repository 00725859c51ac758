"""The controller's experiments, with what was kept of them wherever it is kept."""

from __future__ import annotations

import time

from actors.experiments.control import ExperimentControl
from actors.experiments.kept import Keeper, Newest, StateSetup, Store
from actors.experiments.redis_keeper import RedisKeeper


def start_experiments(app: str, setup: StateSetup) -> ExperimentControl:
    keepers: list[Keeper] = [Store(app, setup)]
    if setup.redis.url:
        keepers.append(RedisKeeper(setup.redis, setup.digest(app)))
    if not setup.postgres.url:
        return ExperimentControl(Newest(*keepers), time.time)
    # An extra of its own: most servers have no PostgreSQL (`actors.app` has looked for it).
    from actors.experiments.postgres_keeper import PostgresKeeper

    postgres = PostgresKeeper(setup.postgres, setup.digest(app))
    return ExperimentControl(Newest(*keepers, postgres), time.time, rated=postgres.rated)
