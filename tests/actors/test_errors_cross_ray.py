"""Every error keeps its class, message and details across a Ray actor boundary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from cluster.errors import ERRORS_BY_NAME, SquadronError

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def raiser() -> Iterator[ray.actor.ActorHandle]:
    @ray.remote(num_cpus=0)
    class Raiser:
        def fail(self, name: str) -> None:
            raise ERRORS_BY_NAME[name]("what happened", tensor="image", retry_after_s=2)

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
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
