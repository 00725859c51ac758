"""What a running experiment does next: a canary's step, a roll-back, a bandit's new weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.config.experiment import BanditConfig, CanaryConfig, ExperimentConfig
from cluster.experiments.bandit import rewards_of, thompson_weights
from cluster.experiments.counts import totals
from cluster.experiments.difference import MIN_PER_STRATUM
from cluster.experiments.judge import Judgement
from cluster.experiments.state import ExperimentState, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """New weights and a new status, with the reason. `rewards` and `paid`: see the state's."""

    weights: Mapping[str, float]
    status: Status
    reason: str
    step: int = 0
    rewards: Mapping[str, tuple[float, float]] | None = None
    paid: Mapping[str, tuple[float, float]] | None = None

    def applied(self, state: ExperimentState, at_s: float) -> ExperimentState:
        moved = state.with_weights(self.weights, at_s, is_new_stratum=self.rewards is not None)
        return replace(
            moved,
            status=self.status,
            reason=self.reason,
            step=self.step,
            rewards=state.rewards if self.rewards is None else self.rewards,
            paid=state.paid if self.paid is None else self.paid,
        )


def next_step(
    config: ExperimentConfig,
    state: ExperimentState,
    judgement: Judgement,
    *,
    at_s: float,
    seed: int,
) -> Step | None:
    """None: go on as it is. Chance comes in as `seed`, the time as `at_s`."""
    if state.status in ("rolled_back", "promoted"):
        return None
    if judgement.verdict == "roll_back" and config.rails.roll_back and not config.bandit:
        return _roll_back(config, state, judgement)
    if state.status == "held" or judgement.verdict == "blocked":
        return None
    if config.canary is not None:
        return _canary(config, config.canary, state, at_s)
    if config.bandit is not None and at_s - state.since_s >= config.bandit.update_s:
        return _bandit(config.bandit, state, seed)
    return None


def _roll_back(
    config: ExperimentConfig, state: ExperimentState, judgement: Judgement
) -> Step | None:
    """The broken arms get nothing, the others share what they had; the control steps in when
    nothing is left."""
    if config.guardrails is None and config.canary is None:
        return None
    bad = {name for name, arm in judgement.arms.items() if arm.verdict == "roll_back"}
    weights = {arm: 0.0 if arm in bad else weight for arm, weight in state.weights.items()}
    if sum(weights.values()) <= 0:
        weights[config.control] = 1.0
    left = [arm for arm, weight in weights.items() if weight > 0]
    status: Status = "rolled_back" if left == [config.control] else state.status
    if weights == dict(state.weights):
        return None
    return Step(weights=weights, status=status, reason=judgement.reason, step=state.step)


def _canary(
    config: ExperimentConfig, canary: CanaryConfig, state: ExperimentState, at_s: float
) -> Step | None:
    arm = next(name for name in config.split if name != config.control)
    if at_s - state.since_s < canary.step_s:
        return None
    requests = state.now.of(arm).requests
    if requests < canary.step_requests:
        return None
    # A step in which the control had next to nothing was compared with nothing.
    is_compared = state.now.of(config.control).requests >= MIN_PER_STRATUM
    if state.weights.get(config.control, 0) > 0 and not is_compared:
        return None
    done = (
        f"{arm} had {canary.watched_share(state.step):g} % of the traffic for {canary.step_s:g} s"
    )
    done = f"{done} ({requests} requests) and broke no guardrail"
    if state.step + 1 == len(canary.steps):
        weights = config.promoted_weights()
        return Step(weights=weights, status="promoted", reason=done, step=state.step)
    weights = config.canary_weights(state.step + 1)
    return Step(weights=weights, status="running", reason=done, step=state.step + 1)


def _bandit(bandit: BanditConfig, state: ExperimentState, seed: int) -> Step | None:
    """What was seen since the last update is added to what is remembered, a little less each time,
    so that the bandit follows arms that change; None where nothing was. Also what came late, of
    requests under earlier weights: feedback is later than an update more often than not."""
    total = {arm: rewards_of(state.total(arm), bandit.reward) for arm in state.weights}
    paid = state.paid
    if state.rewards and not paid:
        # Kept by a version that looked at the latest weights only: these alone are not paid yet.
        before = state.strata[:-1]
        paid = {arm: rewards_of(totals(before, arm), bandit.reward) for arm in state.weights}
    if all(total[arm] == paid.get(arm, (0.0, 0.0)) for arm in total):
        return None  # a night without requests is no reason to forget the day
    rewards = {}
    for arm in state.weights:
        (good, bad), kept = total[arm], state.rewards.get(arm, (0.0, 0.0))
        old = paid.get(arm, (0.0, 0.0))
        rewards[arm] = (
            bandit.discount * kept[0] + max(0.0, good - old[0]),
            bandit.discount * kept[1] + max(0.0, bad - old[1]),
        )
    weights = thompson_weights(rewards, floor=bandit.floor, seed=seed)
    shares = ", ".join(f"{arm} {weight:.1%}" for arm, weight in weights.items())
    return Step(
        weights=weights,
        status="running",
        reason=f"likely to be best: {shares}",
        rewards=rewards,
        paid=total,
    )
