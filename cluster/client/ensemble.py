"""Several models that answer as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

from cluster.client.inputs import named_inputs
from cluster.client.model import Model
from cluster.client.values import Setting, is_number
from cluster.errors import ConfigError, InvalidRequest
from cluster.routing.ensembles.combine import hard_vote, label_vote, mean
from cluster.tensors import Array

Strategy = Literal["voting", "averaging", "stacking"]
STRATEGIES = ("voting", "averaging", "stacking")
PROBABILITIES = "probabilities"


class ModelEnsemble:
    """Members are asked at the same time and their answers combined by the functions that combine
    inside a server (`cluster.routing.ensembles`).

    `output`: the one of the members' outputs that is combined; left out, `probabilities` where all
    members have them, else the only output. Closing the ensemble leaves its members open: they are
    their owner's.
    """

    def __init__(
        self,
        models: Sequence[Model],
        strategy: str = "averaging",
        weights: Sequence[float] | None = None,
        *,
        output: str = "",
    ) -> None:
        """Raises: ConfigError for fewer than two members, and as `set_strategy`."""
        if len(models) < 2:
            raise ConfigError(
                f"an ensemble of {len(models)} models; allowed: 2 and more", key="models"
            )
        self.models = tuple(models)
        self.output = output or _common_output(self.models)
        self._strategy: str = "averaging"
        self._weights: tuple[float, ...] = (1.0,) * len(models)
        self._head: Any = None
        self._pool = ThreadPoolExecutor(len(models), thread_name_prefix="ensemble")
        self._is_closed = False
        self.set_strategy(strategy, weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def strategy(self) -> str:
        return self._strategy

    @property
    def weights(self) -> tuple[float, ...]:
        return self._weights

    def set_strategy(self, strategy: str, weights: Sequence[float] | None = None) -> Setting:
        """`voting`: each member has a vote for its best class (of labels: for its label); the
        answer is the classes' shares. `averaging`: the weighted mean. `stacking`: a logistic
        regression on what the members say, which `fit` makes; weights have no meaning for it.

        Raises: ConfigError for another strategy, and weights that are not one a member, none
        negative and some above 0.
        """
        if strategy not in STRATEGIES:
            allowed = ", ".join(STRATEGIES)
            raise ConfigError(
                f"strategy is {strategy!r}; allowed: {allowed}", key="strategy", value=strategy,
                allowed=allowed,
            )  # fmt: skip
        if weights is not None and strategy == "stacking":
            raise ConfigError(
                "stacking learns its weights from labelled rows: call fit(...)", key="weights"
            )
        shares = tuple(weights) if weights is not None else (1.0,) * len(self.models)
        are_numbers = len(shares) == len(self.models) and all(map(is_number, shares))
        if not are_numbers or min(shares) < 0 or not sum(shares) > 0:
            raise ConfigError(
                f"weights {list(shares)}: give one a member ({len(self.models)}), none negative, "
                "some above 0",
                key="weights",
            )
        self._strategy, self._weights = strategy, shares
        says = f"{strategy} of {self.output!r} with weights {list(shares)}"
        if strategy == "stacking":
            says = "stacking; fitted" if self._head is not None else "stacking; call fit(...) first"
        return Setting(name="strategy", acts=strategy != "stacking" or bool(self._head), says=says)

    def fit(self, items: Sequence[Any], labels: Sequence[int | str], *, c: float = 1.0) -> Setting:
        """Learn how to combine (strategy `stacking`): logistic regression with inverse L2 `c` on
        the members' answers to rows whose labels are known. Use rows that no member was trained on.

        Raises: ConfigError for as many labels as rows, or fewer than two classes.
        """
        if len(items) != len(labels) or len(set(labels)) < 2:
            raise ConfigError(
                f"{len(items)} rows, {len(labels)} labels of {len(set(labels))} classes: give one "
                "label a row and at least two classes",
                key="labels",
            )
        from cluster.optimization.stacking.fit import fit

        answers = [self._members(item) for item in items]
        import numpy as np

        columns = {
            f"m{index}": np.concatenate([answer[index] for answer in answers])
            for index in range(len(self.models))
        }
        self._head = fit(columns, [str(label) for label in labels], inverse_l2=c)
        self._strategy = "stacking"
        return Setting(name="strategy", acts=True, says=f"stacking fitted on {len(items)} rows")

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the columns of what stacking answers. Raises: InvalidRequest before `fit`."""
        if self._head is None:
            raise InvalidRequest("stacking has no classes before fit(...)")
        found: tuple[str, ...] = self._head.classes
        return found

    def predict(self, inputs: Any = None, /, **named: Any) -> dict[str, Array]:
        """The combined output under its name (`probabilities` for stacking).

        Raises: what a member raises; InvalidRequest for stacking that was not fitted.
        """
        values = self._members(named_inputs(inputs, named, self.models[0].signature))
        match self._strategy:
            case "stacking":
                if self._head is None:
                    raise InvalidRequest("strategy stacking was not fitted: call fit(...) first")
                members = {f"m{index}": value for index, value in enumerate(values)}
                return {PROBABILITIES: self._head.probabilities(members)}
            case "voting" if values[0].dtype.kind == "O":
                return {self.output: label_vote(values, self._weights)}
            case "voting":
                return {self.output: hard_vote(values, self._weights)}
            case _:
                return {self.output: mean(values, self._weights)}

    def close(self) -> None:
        """The members stay open. Closing twice does nothing."""
        self._is_closed = True
        self._pool.shutdown()

    def unload(self) -> None:
        """`close`, and the members too."""
        self.close()
        for model in self.models:
            model.unload()

    def _members(self, inputs: Any) -> list[Array]:
        if self._is_closed:
            raise InvalidRequest("the ensemble was closed")

        def ask(model: Model) -> Mapping[str, Array]:
            return model.predict(inputs, outputs=(self.output,))

        return [answer[self.output] for answer in self._pool.map(ask, self.models)]


def _common_output(models: Sequence[Model]) -> str:
    """Raises: ConfigError where members have no output in common, or several."""
    if all(model.signature.output(PROBABILITIES) is not None for model in models):
        return PROBABILITIES
    common = [
        spec.name
        for spec in models[0].signature.outputs
        if all(model.signature.output(spec.name) is not None for model in models)
    ]
    if len(common) == 1:
        return common[0]
    said = ", ".join(common) or "none"
    raise ConfigError(
        f"say which output is combined (output=...): common to all members: {said}",
        key="output",
        allowed=said,
    )
