from __future__ import annotations

from cluster.control.autoscaling.gather import (
    DeploymentReport,
    DoorLoad,
    DoorReport,
    Gatherer,
)
from cluster.control.autoscaling.load import VariantLoad


def door(**load: int) -> DoorReport:
    return DoorReport(variants={"m": DoorLoad(**load)}, ensembles={"e": 2})


def serve(num_running: int = 1, **busy: tuple[float, float]) -> DeploymentReport:
    return DeploymentReport(
        num_running=num_running,
        num_target=2,
        busy_s={name: each[0] for name, each in busy.items()},
        num_served={name: each[1] for name, each in busy.items()},
    )


def test_the_reports_of_all_doors_and_replicas_are_added_up() -> None:
    gatherer = Gatherer(rows_at_once={"m": 4})
    gatherer.serve("m", serve(a=(10.0, 100), b=(5.0, 50)))
    gatherer.look(0.0)

    gatherer.door("one", door(num_arrived=3, rows_waiting=1, rows_under_way=6), 0.5)
    gatherer.door("two", door(num_arrived=4, rows_under_way=2, num_answered=5, num_in_time=4), 0.6)
    gatherer.door("two", door(num_arrived=1, rows_under_way=3), 0.9)
    gatherer.serve("m", serve(a=(10.5, 105), b=(5.5, 55)))
    found = gatherer.look(2.0)

    assert found is not None
    assert found.variants["m"] == VariantLoad(
        at_s=2.0,
        window_s=2.0,
        num_arrived=8,
        num_waiting=1 + 6 + 3 - 4,
        num_running=1,
        num_target=2,
        num_answered=5,
        num_in_time=4,
        busy_s=1.0,
        num_served=10,
        num_rows=10,
    )
    assert found.ensembles == {"e": 6}


def test_what_is_not_told_is_left_out() -> None:
    gatherer = Gatherer(rows_at_once={})
    gatherer.look(0.0)
    assert gatherer.look(1.0) is None

    gatherer.door("one", door(num_arrived=3), 1.5)
    assert gatherer.look(2.0) is not None
    gatherer.serve("m", serve())
    found = gatherer.look(3.0)

    assert found is not None
    assert found.variants["m"].busy_s is None
    assert gatherer.look(9.0) is None


def test_a_replica_that_restarted_does_not_take_time_away() -> None:
    gatherer = Gatherer(rows_at_once={})
    gatherer.serve("m", serve(a=(10.0, 100)))
    gatherer.look(0.0)
    gatherer.door("one", door(), 0.9)
    gatherer.serve("m", serve(a=(0.5, 5)))
    gatherer.serve("m", serve(a=(1.0, 10)))

    found = gatherer.look(1.0)

    assert found is not None
    assert (found.variants["m"].busy_s, found.variants["m"].num_served) == (0.5, 5)


def test_with_no_replica_everything_waits() -> None:
    gatherer = Gatherer(rows_at_once={"m": 8})
    gatherer.look(0.0)
    gatherer.serve("m", serve(num_running=0))
    gatherer.door("one", door(num_arrived=1, rows_under_way=1), 0.5)

    found = gatherer.look(1.0)

    assert found is not None
    assert found.variants["m"].num_waiting == 1


def test_what_a_replica_did_before_its_first_word_counts_if_it_started_while_we_looked() -> None:
    gatherer = Gatherer(rows_at_once={})
    gatherer.look(0.0)
    gatherer.serve("m", serve(num_running=0))
    gatherer.door("one", door(num_arrived=2), 0.5)
    gatherer.serve("m", serve(a=(0.2, 2)))

    found = gatherer.look(1.0)

    assert found is not None
    assert (found.variants["m"].busy_s, found.variants["m"].num_served) == (0.2, 2)


def test_rows_are_added_up_and_the_cost_of_batches_goes_through() -> None:
    gatherer = Gatherer(rows_at_once={})
    told = {"num_running": 1, "num_target": 1, "batch_s": {1: 0.01, 8: 0.02}}

    def report(busy_s: float, served: float, rows: float) -> DeploymentReport:
        return DeploymentReport(
            busy_s={"a": busy_s}, num_served={"a": served}, num_rows={"a": rows}, **told
        )

    gatherer.serve("m", report(1.0, 10, 25))
    gatherer.look(0.0)
    gatherer.door("one", door(num_arrived=1), 0.5)
    gatherer.serve("m", report(2.0, 14, 37))
    found = gatherer.look(1.0)

    assert found is not None
    load = found.variants["m"]
    assert (load.num_served, load.num_rows, load.batch_s) == (4, 12, {1: 0.01, 8: 0.02})


def test_rows_that_wait_are_told_as_the_requests_that_they_are() -> None:
    """The guard multiplies what waits with the seconds of a request."""
    gatherer = Gatherer(rows_at_once={"m": 16})

    def report(served: float) -> DeploymentReport:
        return DeploymentReport(
            num_running=1,
            num_target=1,
            busy_s={"a": 0.1 * served},
            num_served={"a": served},
            num_rows={"a": 32 * served},
        )

    gatherer.serve("m", report(10))
    gatherer.look(0.0)
    gatherer.serve("m", report(20))
    gatherer.door("one", door(num_arrived=10, rows_waiting=64, rows_under_way=16 + 33), 0.5)
    busy = gatherer.look(1.0)
    gatherer.door("one", door(rows_waiting=64), 1.5)
    silent = gatherer.look(2.0)

    assert busy is not None
    assert busy.variants["m"].num_waiting == 4  # 97 rows of requests with 32 each
    assert silent is not None
    assert silent.variants["m"].num_waiting == 2
