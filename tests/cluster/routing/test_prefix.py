from __future__ import annotations

from cluster.config.language.settings import RoutingConfig
from cluster.routing.prefix import Choice, PrefixRouter, prefix_keys

IDLE = {"a": 0.0, "b": 0.0, "c": 0.0}
SYSTEM = "s" * 64


def router(**changes: object) -> PrefixRouter:
    return PrefixRouter(RoutingConfig.model_validate({"block_chars": 16} | changes))


def keys(text: str) -> tuple[str, ...]:
    return prefix_keys(text, 16)


def test_equal_beginnings_have_equal_keys() -> None:
    one, other = keys(SYSTEM + "x" * 16), keys(SYSTEM + "y" * 16)

    assert one[:4] == other[:4]
    assert one[4] != other[4]


def test_a_block_that_is_not_whole_has_no_key() -> None:
    assert len(keys("a" * 31)) == 1
    assert keys("short") == ()


def test_equal_blocks_at_other_places_have_other_keys() -> None:
    assert len(set(keys("a" * 64))) == 4


def test_a_prompt_goes_where_its_beginning_was_computed() -> None:
    tested = router()
    tested.sent(keys(SYSTEM + "x" * 16), "b", "ab")

    assert tested.choose(keys(SYSTEM + "y" * 16), IDLE) == Choice(
        replica="b", num_shared=4, reason="prefix"
    )


def test_the_longest_beginning_counts() -> None:
    tested = router()
    tested.sent(keys(SYSTEM), "a", "ab")
    tested.sent(keys(SYSTEM + "x" * 16)[4:], "b", "ab")

    assert tested.choose(keys(SYSTEM + "x" * 16), IDLE).replica == "b"


def test_a_replica_far_above_the_mean_is_passed_over() -> None:
    tested = router(max_imbalance=1.5)
    tested.sent(keys(SYSTEM), "a", "ab")

    chosen = tested.choose(keys(SYSTEM), {"a": 90.0, "b": 10.0, "c": 20.0}, cost=10)

    assert chosen == Choice(replica="b", num_shared=0, reason="least work")


def test_a_replica_below_the_bound_keeps_its_prefixes() -> None:
    tested = router(max_imbalance=2.0)
    tested.sent(keys(SYSTEM), "a", "ab")

    assert tested.choose(keys(SYSTEM), {"a": 50.0, "b": 20.0, "c": 20.0}, cost=10).replica == "a"


def test_a_session_stays_where_no_prefix_is_known() -> None:
    tested = router()
    chosen = {tested.choose((), IDLE, session="me", draws=(d, d)).replica for d in (0.0, 0.5, 0.9)}

    assert len(chosen) == 1


def test_a_replica_that_is_gone_is_not_chosen_for_its_prefixes() -> None:
    tested = router()
    tested.sent(keys(SYSTEM), "a", "ab")
    tested.forget("a")

    assert tested.choose(keys(SYSTEM), IDLE).reason == "least work"


def test_what_does_not_fit_goes_to_the_next_that_has_it_and_then_home_again() -> None:
    tested = router(max_imbalance=1.5)
    tested.sent(keys(SYSTEM), "a", "abc")
    tested.sent(keys(SYSTEM), "c", "abc")
    full = {"a": 90.0, "b": 10.0, "c": 20.0}

    assert tested.choose(keys(SYSTEM), full, cost=10).replica == "c"
    tested.sent(keys(SYSTEM), "c", "abc")
    assert tested.choose(keys(SYSTEM), IDLE).replica == "a"


def test_replicas_that_are_there_no_more_make_room() -> None:
    tested = router()
    for name in "xyz":
        tested.sent(keys(SYSTEM), name, "xyz")
    tested.sent(keys(SYSTEM), "a", "ab")

    assert tested.choose(keys(SYSTEM), IDLE) == Choice(replica="a", num_shared=4, reason="prefix")


def test_memory_of_prefixes_is_bounded() -> None:
    tested = router(max_blocks=4)
    tested.sent(keys(SYSTEM), "a", "ab")
    tested.sent(keys("t" * 64), "b", "ab")

    assert tested.choose(keys(SYSTEM), IDLE).num_shared == 0
    assert tested.choose(keys("t" * 64), IDLE).replica == "b"


def test_power_of_two_takes_the_better_of_the_drawn() -> None:
    tested = router(policy="power_of_two")
    work = {"a": 5.0, "b": 1.0, "c": 9.0}

    assert tested.choose((), work, draws=(0.0, 0.99)).replica == "a"
    assert tested.choose((), work, draws=(0.99, 0.99)).replica == "b"


def test_one_replica_is_always_chosen() -> None:
    for policy in ("prefix", "least_work", "power_of_two"):
        assert router(policy=policy).choose((), {"a": 7.0}, draws=(0.9, 0.9)).replica == "a"
