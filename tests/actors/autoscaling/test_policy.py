"""The policy as Serve makes and asks it, without Serve: no autoscaler is there to be reached."""

from __future__ import annotations

from ray.serve.config import AutoscalingContext

from actors.autoscaling.policy import SquadronPolicy
from actors.deployments import serve_autoscaling
from cluster.config.scaling.autoscaling import AutoscalingConfig


def context(num_target: int) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=None,  # type: ignore[arg-type]  # our policy does not look at it
        deployment_name="variant-m",
        app_name="squadron+m",
        current_num_replicas=1,
        target_num_replicas=num_target,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics={},
        raw_metrics={},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=9,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=None,
    )


def test_without_an_autoscaler_the_number_stays() -> None:
    policy = SquadronPolicy("m")

    assert [policy(context(num))[0] for num in (3, 5)] == [3, 5]


def test_serve_is_told_our_policy_and_waits_for_nothing_itself() -> None:
    made = serve_autoscaling("m", AutoscalingConfig(min_replicas=0, max_replicas=7))

    assert made.policy.get_policy().__name__ == "SquadronPolicy"
    assert made.policy.policy_kwargs == {"variant": "m"}
    assert (made.min_replicas, made.max_replicas) == (0, 7)
    assert made.upscale_delay_s == made.downscale_delay_s == made.downscale_to_zero_delay_s == 0
