"""The section `sequences` of a variant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config.sequences import SequencesConfig
from cluster.config.variant import VariantConfig


def test_the_defaults_are_tritons() -> None:
    config = SequencesConfig()

    assert (config.strategy, config.max_sequence_idle_us) == ("direct", 1_000_000)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"controls": {"S": {"kind": "start", "datatype": "INT64"}}},
            "kind start has one of the datatypes INT32, FP32, BOOL, got INT64",
        ),
        (
            {"controls": {"A": {"kind": "start"}, "B": {"kind": "start"}}},
            "controls holds kind start more than once",
        ),
        (
            {
                "controls": {"A": {"kind": "start"}},
                "state": [{"input": "A", "output": "B", "datatype": "INT32", "shape": [1]}],
            },
            "tensor 'A' is named more than once",
        ),
        (
            {
                "state": [
                    {
                        "input": "A",
                        "output": "B",
                        "datatype": "INT32",
                        "shape": [2],
                        "initial": [1, 2, 3],
                    }
                ]
            },
            "initial of 'A' has 3 elements",
        ),
    ],
)
def test_a_mistake_is_named(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SequencesConfig.model_validate(section)


def test_a_model_of_sequences_is_not_held_by_the_doors() -> None:
    with pytest.raises(ValidationError, match="colocate: always excludes sequences"):
        VariantConfig.model_validate({"source": "m", "colocate": "always", "sequences": {}})
