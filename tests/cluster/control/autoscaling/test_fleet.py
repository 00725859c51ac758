from __future__ import annotations

from typing import Any

from cluster.config.scaling.autoscaling import AutoscalingBudget, AutoscalingConfig
from cluster.control.autoscaling.fleet import Fleet, FleetLoad, Scaled
from cluster.control.autoscaling.load import Scaling, VariantLoad


def fleet(
    *names: str,
    calls: dict[str, dict[str, float]] | None = None,
    budget: dict[str, Any] | None = None,
    **config: Any,
) -> Fleet:
    made = AutoscalingConfig.model_validate({"max_replicas": 20, "downscale_delay_s": 5} | config)
    scaled = {name: Scaled(config=made, memory_bytes=100) for name in names}
    limits = AutoscalingBudget.model_validate(budget or {})
    return Fleet(scaled, calls=calls or {}, budget=limits)


def looks(
    made: Fleet, rates: dict[str, int], count: int = 20, start_s: int = 0, **ensembles: int
) -> dict[str, Scaling]:
    """Every request takes 0.1 s; what was wanted last runs."""
    found: dict[str, Scaling] = {}
    for second in range(start_s + 1, start_s + count + 1):
        loads = {}
        for name, rate in rates.items():
            num = found[name].num_replicas if name in found else 1
            loads[name] = VariantLoad(
                at_s=second,
                window_s=1.0,
                num_arrived=rate,
                num_waiting=0,
                num_running=num,
                num_target=num,
                busy_s=0.1 * max(rate, 1),
                num_served=max(rate, 1),
            )
        told = FleetLoad(at_s=second, window_s=1.0, variants=loads, ensembles=ensembles)
        found = {each.variant: each for each in made.decide(told)}
    return found


def test_the_later_steps_of_an_ensemble_grow_with_its_requests_before_any_reached_them() -> None:
    made = fleet("first", "second", "other", calls={"both": {"first": 1.0, "second": 0.5}})

    found = looks(made, {"first": 40, "second": 0, "other": 0}, both=40)

    assert found["first"].num_replicas > found["second"].num_replicas > 2
    assert "its ensembles" in found["second"].reason
    assert found["other"].num_replicas == 1


def test_a_variant_that_told_nothing_is_left_as_it_is() -> None:
    made = fleet("a", "b")

    assert set(looks(made, {"a": 5})) == {"a"}


def test_the_cost_cap_takes_from_where_most_room_is_left() -> None:
    free = looks(fleet("a", "b"), {"a": 40, "b": 10})
    capped = looks(fleet("a", "b", budget={"max_cost": 6}), {"a": 40, "b": 10})

    assert sum(each.num_replicas for each in free.values()) > 6
    assert sum(each.num_replicas for each in capped.values()) == 6
    assert capped["a"].num_replicas > capped["b"].num_replicas >= 1
    assert any("by autoscaling.max_cost (6)" in each.reason for each in capped.values())


def test_when_memory_is_short_what_was_asked_least_recently_goes() -> None:
    made = fleet(
        "old", "older", "new", budget={"max_memory_bytes": 200}, min_replicas=0, initial_replicas=0
    )
    looks(made, {"old": 0, "older": 3}, count=10)
    looks(made, {"old": 3, "older": 0}, count=20, start_s=10)
    found = looks(made, {"old": 0, "older": 0, "new": 3}, count=16, start_s=30)

    assert found["older"].num_replicas == 0
    assert found["new"].num_replicas == 1


def test_a_variant_that_may_not_go_to_zero_is_not_evicted() -> None:
    made = fleet("a", "b", budget={"max_memory_bytes": 100})

    found = looks(made, {"a": 0, "b": 0})

    assert {name: each.num_replicas for name, each in found.items()} == {"a": 1, "b": 1}


def test_models_that_stay_keep_what_was_learned_when_others_come() -> None:
    made = fleet("a")
    before = looks(made, {"a": 40})["a"]
    other = AutoscalingConfig(max_replicas=20, downscale_delay_s=5)
    known = made._variants["a"]

    made.adopt(
        {"a": known, "b": Scaled(config=other)}, calls={}, budget=AutoscalingBudget(max_cost=100)
    )
    after = looks(made, {"a": 40, "b": 0}, count=1, start_s=20)

    assert after["a"].service_s == before.service_s > 0
    assert after["a"].wanted == before.wanted
    assert set(after) == {"a", "b"}


def test_what_a_replica_was_seen_to_hold_counts_where_the_configuration_does_not_say() -> None:
    lazy = AutoscalingConfig(min_replicas=0, max_replicas=2, downscale_delay_s=1000)
    made = Fleet(
        {"old": Scaled(config=lazy), "new": Scaled(config=lazy, memory_bytes=60)},
        calls={},
        budget=AutoscalingBudget(max_memory_bytes=100),
    )

    def look(at_s: float, *, is_new_asked: bool, holds: int) -> dict[str, int]:
        asked = int(is_new_asked)
        loads = {
            "old": VariantLoad(
                at_s=at_s,
                window_s=1.0,
                num_arrived=0,
                num_waiting=0,
                num_running=1,
                num_target=1,
                memory_bytes=holds,
            ),
            "new": VariantLoad(
                at_s=at_s,
                window_s=1.0,
                num_arrived=asked,
                num_waiting=asked,
                num_running=0,
                num_target=0,
            ),
        }
        load = FleetLoad(at_s=at_s, window_s=1.0, variants=loads, ensembles={})
        return {each.variant: each.num_replicas for each in made.decide(load)}

    assert look(1, is_new_asked=False, holds=50) == {"old": 1, "new": 0}
    assert look(2, is_new_asked=True, holds=30) == {"old": 1, "new": 1}
    assert look(3, is_new_asked=True, holds=50) == {"old": 0, "new": 1}
    assert look(4, is_new_asked=True, holds=0) == {"old": 0, "new": 1}


def starts(made: Fleet, rates: dict[str, int], running: dict[str, int], cores: int = 0) -> Any:
    """Decisions of consecutive seconds in which nothing that was asked for has started yet."""
    target = dict(running)
    second = 0
    while True:
        second += 1
        loads = {
            name: VariantLoad(
                at_s=second,
                window_s=1.0,
                num_arrived=rate,
                num_waiting=0,
                num_running=running[name],
                num_target=target[name],
                busy_s=0.1 * rate,
                num_served=rate,
            )
            for name, rate in rates.items()
        }
        told = FleetLoad(at_s=second, window_s=1.0, variants=loads, ensembles={}, num_cores=cores)
        found = {each.variant: each for each in made.decide(told)}
        target = {name: each.num_replicas for name, each in found.items()}
        yield found


def test_as_many_start_at_a_time_as_there_are_cores_and_the_others_after_them() -> None:
    running = {"a": 1, "b": 1}
    seconds = starts(fleet("a", "b"), {"a": 60, "b": 60}, running, cores=4)

    for _ in range(5):
        found = next(seconds)
        assert {name: each.num_replicas for name, each in found.items()} == {"a": 3, "b": 3}
    assert "2 start now, the others after them (4 at a time)" in found["a"].reason

    running["a"] = 3  # both of one have started: two more may
    assert next(seconds)["a"].num_replicas == 5


def test_the_configuration_says_how_many_start_and_everyone_gets_one() -> None:
    made = fleet("a", "b", "c", budget={"max_starting": 1})
    running = {"a": 1, "b": 1, "c": 1}

    found = next(starts(made, {"a": 60, "b": 60, "c": 60}, running, cores=64))

    assert [each.num_replicas for each in found.values()] == [2, 2, 2]


def test_what_was_asked_for_is_not_taken_back_for_another_one() -> None:
    running = {"a": 1, "b": 1}
    rates = {"a": 60, "b": 0}
    seconds = starts(fleet("a", "b"), rates, running, cores=4)
    assert next(seconds)["a"].num_replicas == 5

    rates["b"] = 60
    found = next(seconds)

    assert (found["a"].num_replicas, found["b"].num_replicas) == (5, 2)


def test_how_long_a_start_takes_is_learned_of_those_that_were_let_start() -> None:
    made = fleet("a", budget={"max_starting": 2}, startup_s=4.0)
    running = {"a": 1}
    seconds = starts(made, {"a": 60}, running)
    for _ in range(20):
        asked = next(seconds)["a"]
        next(seconds)
        running["a"] = asked.num_replicas  # two seconds after it was asked for

    assert made._scalers["a"].startup_s < 3.5


def test_a_memory_cap_holds_when_every_model_is_in_use() -> None:
    made = fleet("a", "b", "c", budget={"max_memory_bytes": 200}, min_replicas=0, max_replicas=1)

    found = looks(made, {"a": 5, "b": 5, "c": 5})

    assert sum(each.num_replicas for each in found.values()) == 2


def test_a_replica_that_nothing_is_known_of_counts_with_the_size_of_its_files() -> None:
    lazy = AutoscalingConfig(min_replicas=0, max_replicas=1)
    made = Fleet(
        {name: Scaled(config=lazy, assumed_bytes=80) for name in "ab"},
        calls={},
        budget=AutoscalingBudget(max_memory_bytes=100),
    )
    loads = {
        name: VariantLoad(
            at_s=1.0, window_s=1.0, num_arrived=1, num_waiting=1, num_running=0, num_target=0
        )
        for name in "ab"
    }

    found = made.decide(FleetLoad(at_s=1.0, window_s=1.0, variants=loads, ensembles={}))

    assert sum(each.num_replicas for each in found) == 1
