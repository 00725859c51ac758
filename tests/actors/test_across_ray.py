"""One small Ray: errors keep their class, message and details across an actor's boundary, and which
GPU an actor has is read from Ray's own tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.measures.cluster import actors
from cluster.errors import ERRORS_BY_NAME, SquadronError

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def raiser() -> Iterator[ray.actor.ActorHandle]:
    @ray.remote(num_cpus=0)
    class Raiser:
        def fail(self, name: str) -> None:
            raise ERRORS_BY_NAME[name]("what happened", tensor="image", retry_after_s=2)

    # GPUs that nobody computes on: Ray counts them and numbers them all the same.
    ray.init(address="local", num_cpus=1, num_gpus=3, include_dashboard=False, log_to_driver=False)
    try:
        yield Raiser.remote()
    finally:
        ray.shutdown()


@pytest.mark.parametrize("name", ERRORS_BY_NAME)
def test_an_error_arrives_as_it_left(raiser: ray.actor.ActorHandle, name: str) -> None:
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(raiser.fail.remote(name))

    cause = caught.value.cause
    assert type(cause) is ERRORS_BY_NAME[name]
    assert isinstance(cause, SquadronError)
    assert cause.message == "what happened"
    assert cause.details == {"tensor": "image", "retry_after_s": 2}


@pytest.mark.usefixtures("raiser")
def test_an_actor_s_gpus_are_those_that_ray_gave_it() -> None:
    @ray.remote(num_cpus=0)
    class Holder:
        def given(self) -> list[int]:
            return [int(each) for each in ray.get_gpu_ids()]

    group = placement_group([{"GPU": 1}])
    placed = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    holders = {
        "half": Holder.options(name="half", num_gpus=0.5).remote(),
        "other-half": Holder.options(name="other-half", num_gpus=0.5).remote(),
        "placed": Holder.options(name="placed", num_gpus=1, scheduling_strategy=placed).remote(),
        "none": Holder.options(name="none").remote(),
    }
    given = {name: tuple(ray.get(each.given.remote())) for name, each in holders.items()}

    seen = {each.name: each for each in actors()}

    assert {name: seen[name].gpus for name in holders} == given
    assert {len(given[name]) for name in ("half", "other-half", "placed")} == {1}
    assert given["placed"] != given["half"]
    assert given["none"] == ()
    assert {seen[name].node_id for name in holders} == {ray.nodes()[0]["NodeID"]}
