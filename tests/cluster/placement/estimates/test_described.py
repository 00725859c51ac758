from __future__ import annotations

from typing import Any

import pytest

from cluster.config.planning.demand import PlannedModelConfig
from cluster.config.variant import VariantConfig
from cluster.placement.estimates.described import as_configured, described


def concurrency(section: dict[str, Any], *, is_batched: bool = True, **variant: Any) -> int:
    told = VariantConfig.model_validate({"source": "m", **variant})
    planned = PlannedModelConfig.model_validate(section)
    return as_configured(planned, told, is_batched=is_batched).concurrency


@pytest.mark.parametrize(
    ("variant", "most"),
    [
        ({"batching": {"max_batch_size": 16}}, 16),
        ({"batching": {"mode": "off", "max_batch_size": 16}}, 1),
        ({"llm": {"max_num_seqs": 64}}, 64),
    ],
)
def test_memory_must_do_for_all_that_a_variant_computes_at_once(
    variant: dict[str, Any], most: int
) -> None:
    assert concurrency({}, **variant) == most


def test_what_the_demand_says_stands_before_what_the_variant_allows() -> None:
    assert concurrency({"concurrency": 1}, batching={"max_batch_size": 16}) == 1


def test_a_model_that_takes_one_row_computes_one() -> None:
    assert concurrency({}, is_batched=False, batching={"max_batch_size": 16}) == 1


def test_caches_and_activations_can_be_written_by_hand() -> None:
    layers = {"count": 2, "weights_gib": 1, "gflops": 1, "kv_kib": 8, "working_kib": 4}

    facts = described("m", PlannedModelConfig.model_validate({"layers": layers}))

    assert facts is not None
    assert facts.kv_bytes == 2 * 8 * 1024
    assert facts.layers[0].working_bytes == 4 * 1024
