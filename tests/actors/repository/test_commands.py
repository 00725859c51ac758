from __future__ import annotations

import pytest

from actors.repository.commands import scaled_when_loaded
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.variant import VariantConfig

LOADED = AutoscalingConfig(min_replicas=0, max_replicas=4)
PLAIN = VariantConfig(source="m")


def test_a_model_loaded_at_run_time_is_scaled_as_the_section_says_from_its_first_replica() -> None:
    found = scaled_when_loaded(PLAIN, LOADED).autoscaling

    assert found is not None
    assert (found.min_replicas, found.first_replicas, found.max_replicas) == (0, 1, 4)


@pytest.mark.parametrize(
    ("variant", "scaling"),
    [
        (PLAIN, None),
        (VariantConfig(source="m", autoscaling=AutoscalingConfig(max_replicas=2)), LOADED),
        (VariantConfig.model_validate({"source": "m", "sequences": {}}), LOADED),
    ],
)
def test_what_says_it_itself_or_cannot_be_scaled_stays_as_it_is(
    variant: VariantConfig, scaling: AutoscalingConfig | None
) -> None:
    assert scaled_when_loaded(variant, scaling) == variant
