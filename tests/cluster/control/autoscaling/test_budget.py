from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.control.autoscaling.budget import Standing, hold
from cluster.control.autoscaling.load import Scaling

KEY = "autoscaling.max_memory_bytes"


def wants(
    name: str, num: int, *, before: int = 1, rate: float = 5.0, guard: bool = False
) -> Scaling:
    return Scaling(
        variant=name,
        at_s=100.0,
        num_before=before,
        num_replicas=num,
        reason="wanted",
        rate=rate,
        service_s=0.1,
        is_guard=guard,
    )


def held(*wanted: Scaling, limit: float, **standings: Standing) -> dict[str, int]:
    given_ = {each.variant: standings.get(each.variant, Standing(size=100)) for each in wanted}
    found = hold({each.variant: each for each in wanted}, given_, limit=limit, key=KEY)
    return {name: each.num_replicas for name, each in found.items()}


def test_what_would_start_does_not_where_everything_that_runs_is_in_use() -> None:
    wanted = {
        "a": wants("a", 1),
        "b": wants("b", 1),
        "new": wants("new", 1, before=0, rate=0, guard=True),
    }
    standings = {name: Standing(size=100, startup_s=10) for name in wanted}

    found = hold(wanted, standings, limit=200, key=KEY)

    assert {name: each.num_replicas for name, each in found.items()} == {"a": 1, "b": 1, "new": 0}
    assert found["new"].reason == f"not started: {KEY} is 200 and what runs is in use"


def test_what_rests_for_longer_than_its_start_takes_makes_room_for_what_must_start() -> None:
    now, later = Standing(size=100, startup_s=10), Standing(size=100, startup_s=10, rested_s=11)
    new = wants("new", 1, before=0, rate=0, guard=True)

    assert held(wants("a", 1), wants("b", 1), new, limit=200, a=now, b=later) == {
        "a": 1,
        "b": 0,
        "new": 1,
    }


def test_nothing_is_evicted_for_a_start_that_would_not_fit_all_the_same() -> None:
    later, large = Standing(size=100, startup_s=10, rested_s=11), Standing(size=500)
    new = wants("new", 1, before=0, rate=0, guard=True)

    assert held(wants("b", 1), new, limit=200, b=later, new=large) == {"b": 1, "new": 0}


def test_a_lower_limit_takes_also_what_is_in_use() -> None:
    early, late = Standing(size=100, rested_s=3), Standing(size=100, rested_s=1)

    assert held(wants("a", 1), wants("b", 1), limit=100, a=early, b=late) == {"a": 0, "b": 1}


def test_one_that_has_just_started_is_not_idle() -> None:
    asked, idle = Standing(size=100), Standing(size=100, rested_s=30)
    fresh = wants("fresh", 1, rate=0)

    assert held(fresh, wants("old", 1, rate=0), limit=100, fresh=asked, old=idle) == {
        "fresh": 1,
        "old": 0,
    }


def test_what_min_replicas_promise_stays_and_the_reason_says_that_the_limit_is_exceeded() -> None:
    wanted = {"a": wants("a", 3), "b": wants("b", 1)}
    standings = {name: Standing(size=100, min_replicas=1) for name in wanted}

    found = hold(wanted, standings, limit=100, key=KEY)

    assert {name: each.num_replicas for name, each in found.items()} == {"a": 1, "b": 1}
    assert all("(100) is exceeded: min_replicas promise more" in e.reason for e in found.values())


_NUMS = st.integers(0, 5)


@given(
    each=st.lists(
        st.tuples(_NUMS, _NUMS, _NUMS, st.floats(0, 50), st.booleans(), st.integers(0, 300)),
        min_size=1,
        max_size=8,
    ),
    limit=st.floats(1, 3000),
    rested_s=st.lists(st.floats(0, 100), min_size=8, max_size=8),
)
def test_a_limit_is_one_but_for_what_min_replicas_promise(
    each: list[tuple[int, int, int, float, bool, int]], limit: float, rested_s: list[float]
) -> None:
    wanted, standings = {}, {}
    for index, (num, least, before, rate, guard, size) in enumerate(each):
        name = f"v{index}"
        wanted[name] = wants(name, max(num, least), before=before, rate=rate, guard=guard)
        standings[name] = Standing(
            size=size, min_replicas=least, rested_s=rested_s[index], startup_s=10
        )

    found = hold(wanted, standings, limit=limit, key=KEY)

    total = sum(found[name].num_replicas * standings[name].size for name in found)
    least = sum(each.min_replicas * each.size for each in standings.values())
    assert total <= max(limit, least)
    for name, scaling in found.items():
        assert standings[name].min_replicas <= scaling.num_replicas <= wanted[name].num_replicas
        if not standings[name].size:
            assert scaling == wanted[name]
