"""Which models the doors hold themselves, and the reason that is told."""

from __future__ import annotations

import pytest

from cluster.config.variant import VariantConfig
from cluster.models import EngineName
from cluster.routing.colocation import MAX_BYTES, Colocation, colocate


def variant(**changes: object) -> VariantConfig:
    return VariantConfig.model_validate({"source": "m", "device": "cpu", **changes})


def test_one_replica_of_a_small_cpu_model_lives_in_the_door() -> None:
    assert colocate(variant(), engine="onnxruntime", artefact_bytes=100) == Colocation(
        is_colocated=True, reason="auto: 100 bytes on the CPU, cheaper than a hop"
    )


@pytest.mark.parametrize(
    ("changes", "engine", "artefact_bytes", "reason"),
    [
        ({"device": "auto"}, "onnxruntime", 1, "auto: device is auto, not cpu"),
        ({"replicas": 2}, "onnxruntime", 1, "auto: 2 replicas"),
        ({"replicas": 0}, "onnxruntime", 1, "auto: 0 replicas"),
        ({}, "python", 0, "auto: engine python has a process of its own"),
        (
            {"optional": True},
            "onnxruntime",
            1,
            "auto: optional: the door must be ready without it",
        ),
        (
            {"limits": {"nice": 5}},
            "onnxruntime",
            1,
            "auto: limits need a process of their own",
        ),
        ({}, "onnxruntime", MAX_BYTES + 1, "auto: 1048577 bytes, more than 1048576"),
    ],
)
def test_others_have_a_process_of_their_own(
    changes: dict[str, object], engine: EngineName, artefact_bytes: int, reason: str
) -> None:
    found = colocate(variant(**changes), engine=engine, artefact_bytes=artefact_bytes)

    assert found == Colocation(is_colocated=False, reason=reason)


@pytest.mark.parametrize(("choice", "expected"), [("always", True), ("never", False)])
def test_the_configuration_has_the_last_word(choice: str, expected: bool) -> None:
    found = colocate(variant(colocate=choice), engine="torch", artefact_bytes=2**30)

    assert found == Colocation(is_colocated=expected, reason=f"colocate: {choice}")
