from __future__ import annotations

from cluster.config.squadron import SquadronConfig
from cluster.routing.ensembles.calls import calls_per_request
from cluster.routing.table import build_table
from tests.cluster.routing.test_table import CARD, facts


def test_calls_are_counted_through_all_levels() -> None:
    chain = [
        {"split": {"e": 3, "b": 1}, "outputs": {"y": "half"}},
        {"model": "a", "fallback": "b", "inputs": {"x": "half"}, "outputs": {"y": "y"}},
    ]
    config = SquadronConfig.model_validate(
        {
            "variants": {"a": {"card": CARD}, "b": {"card": CARD}},
            "experiments": {"e": {"split": {"a": 1, "b": 1}}},
            "ensembles": {"c": {"inputs": ["x"], "outputs": ["y"], "steps": chain}},
        }
    )
    table = build_table(config, {"a": facts(), "b": facts()})

    assert calls_per_request(table, "c") == {"a": 0.375 + 1.0, "b": 0.375 + 0.25}
    assert calls_per_request(table, "a") == {"a": 1.0}
