from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from cluster.placement.search.facts import LayerFacts, ModelFacts
from cluster.placement.search.stages import Cut, Degrees, Ground, cut
from cluster.topology import Device, Link
from tests.cluster.placement.search.making import model

DEVICE = Device(name="", kind="cuda", memory_bytes=1, flops_per_s=1.0, memory_bytes_per_s=1e30)


def ground(**links: Link) -> Ground:
    fast = Link(bytes_per_s=1e30)
    return Ground(
        device=DEVICE, inside=links.get("inside", fast), between=links.get("between", fast)
    )


def uneven(*costs: float) -> ModelFacts:
    return ModelFacts(
        kind=str(costs), layers=tuple(LayerFacts(flops=c, weight_bytes=int(c)) for c in costs)
    )


def found(facts: ModelFacts, degrees: Degrees, where: Ground | None = None) -> Cut:
    answer = cut(facts, degrees, where or ground())
    assert isinstance(answer, Cut), answer
    return answer


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_no_other_cut_has_a_faster_slowest_stage(stages: int) -> None:
    costs = (5.0, 1.0, 2.0, 8.0, 3.0, 3.0, 1.0)
    others = [
        max(sum(costs[a:b]) for a, b in pairwise((0, *bounds, len(costs))))
        for bounds in combinations(range(1, len(costs)), stages - 1)
    ]

    assert found(uneven(*costs), Degrees(stages=stages)).slowest_s == min(others)


def test_stages_hold_every_layer_once_and_in_order() -> None:
    runs = found(uneven(5, 1, 2, 8, 3), Degrees(stages=3)).layers

    assert [n for run in runs for n in run] == [0, 1, 2, 3, 4]


def test_a_hop_is_paid_by_every_stage_but_the_last() -> None:
    layer = LayerFacts(flops=1.0, weight_bytes=8, activation_bytes=100)
    facts = ModelFacts(kind="hop", layers=(layer,) * 2)
    slow = ground(between=Link(bytes_per_s=200.0, latency_s=0.25))

    assert found(facts, Degrees(stages=2), slow).stage_s == (1.0 + 0.25 + 0.5, 1.0)


def test_slices_divide_work_and_pay_for_a_ring() -> None:
    layer = LayerFacts(flops=4.0, weight_bytes=8, activation_bytes=100, num_collectives=2)
    facts = ModelFacts(kind="ring", layers=(layer,))
    slow = ground(inside=Link(bytes_per_s=1000.0))

    answer = found(facts, Degrees(tensor=4), slow)

    assert answer.total_s == pytest.approx(4.0 / 4 + 2 * 1.5 * 100 / 1000)
    assert answer.weight_bytes == (2,)


def test_the_embedding_comes_with_the_first_stage_and_the_head_with_the_last() -> None:
    layer = LayerFacts(flops=1.0, weight_bytes=10)
    facts = ModelFacts(
        kind="ends",
        layers=(layer,) * 4,
        embedding=LayerFacts(flops=0.0, weight_bytes=7),
        head=LayerFacts(flops=1.0, weight_bytes=5),
    )

    assert found(facts, Degrees(stages=4)).weight_bytes == (17, 10, 10, 15)


def test_a_measured_time_replaces_what_the_work_would_take() -> None:
    facts = ModelFacts(
        kind="measured",
        layers=(LayerFacts(flops=1.0, weight_bytes=1), LayerFacts(flops=3.0, weight_bytes=1)),
        measured_s=(("cuda", 0.4),),
    )

    assert found(facts, Degrees(stages=2)).stage_s == pytest.approx((0.1, 0.3))


def test_a_layer_is_as_slow_as_reading_its_weights() -> None:
    device = Device(name="", kind="cuda", memory_bytes=1, flops_per_s=1e30, memory_bytes_per_s=10.0)
    fast = Link(bytes_per_s=1e30)
    facts = ModelFacts(kind="read", layers=(LayerFacts(flops=1.0, weight_bytes=20),))

    assert found(facts, Degrees(), Ground(device=device, inside=fast, between=fast)).total_s == 2.0


def test_caches_of_all_sequences_are_held() -> None:
    layer = LayerFacts(flops=1.0, weight_bytes=10, activation_bytes=3, kv_bytes=4)
    facts = ModelFacts(kind="kv", layers=(layer,) * 2)

    answer = cut(facts, Degrees(), ground(), 5)

    assert isinstance(answer, Cut)
    assert (answer.weight_bytes, answer.kv_bytes) == ((20,), (5 * 8,))
    # A batch of five: each has what comes in and what goes out.
    assert answer.activation_bytes == (5 * 2 * 3,)
    assert answer.bytes_held == (20 + 5 * 8 + 5 * 2 * 3,)


def test_sequences_that_are_generated_are_read_in_one_at_a_time() -> None:
    layer = LayerFacts(flops=1.0, weight_bytes=10, activation_bytes=3, kv_bytes=4)
    facts = ModelFacts(kind="writes", layers=(layer,) * 2, num_passes=9)

    answer = cut(facts, Degrees(), ground(), 5)

    assert isinstance(answer, Cut)
    assert (answer.kv_bytes, answer.activation_bytes) == ((5 * 8,), (2 * 3,))


def test_slices_share_what_is_computed_inside_but_not_what_goes_through() -> None:
    layer = LayerFacts(flops=1.0, weight_bytes=8, activation_bytes=10, working_bytes=60, kv_bytes=8)
    facts = ModelFacts(kind="wide", layers=(layer,))

    answer = found(facts, Degrees(tensor=4))

    assert answer.activation_bytes == (2 * 10 + 40 // 4,)
    assert answer.kv_bytes == (2,)


def test_more_weights_than_a_device_may_hold_are_refused_with_the_cap() -> None:
    facts = ModelFacts(
        kind="capped", layers=(LayerFacts(flops=1.0, weight_bytes=8),) * 2, max_weight_bytes=9
    )

    told = "single: 16 B of weights on a device, max_memory_mb allows 9 B"
    assert cut(facts, Degrees(), ground()) == told
    assert found(facts, Degrees(stages=2)).weight_bytes == (8, 8)


@pytest.mark.parametrize(
    ("degrees", "said"),
    [
        (Degrees(tensor=2), "tensor 2 does not divide its 9 heads"),
        (Degrees(stages=5), "5 stages need as many layers; it has 4"),
    ],
)
def test_what_cannot_be_cut_so_says_why(degrees: Degrees, said: str) -> None:
    assert cut(model(heads=9), degrees, ground()) == said
