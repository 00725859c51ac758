"""The controller's experiments, with what was kept of them wherever it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from actors.experiments.control import ExperimentControl
from actors.experiments.kept import Keeper, Newest, StateSetup, Store
from actors.experiments.redis_keeper import RedisKeeper
from cluster.experiments.report import Rated


def start_experiments(app: str, setup: StateSetup) -> ExperimentControl:
    keepers: list[Keeper] = [Store(app, setup)]
    told: list[Callable[[Sequence[Rated]], None]] = []
    if setup.redis.url:
        redis = RedisKeeper(setup.redis, setup.digest(app))
        keepers.append(redis)
        told.append(redis.rated)
    if setup.postgres.url:
        # An extra of its own: most servers have no PostgreSQL (`actors.app` has looked for it).
        from actors.experiments.postgres_keeper import PostgresKeeper

        postgres = PostgresKeeper(setup.postgres, setup.digest(app))
        keepers.append(postgres)
        told.append(postgres.rated)

    def rated(ratings: Sequence[Rated]) -> None:
        for tell in told:
            tell(ratings)

    return ExperimentControl(Newest(*keepers), time.time, rated=rated)
