from __future__ import annotations

from typing import Any

import pytest

from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError


def content(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "variants": {"a": {"source": "m"}, "b": {"source": "m/2"}},
        "experiments": {"e": {"split": {"a": 90, "b": 10}}},
    }
    return whole | changes


def mistakes(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_section(content(**changes), SquadronConfig, source="prod.yaml")
    return caught.value.message


def test_a_right_file_is_read() -> None:
    config = check_section(content(), SquadronConfig, source="prod.yaml")

    assert config.model_names() == ("a", "b", "e")
    assert config.server.http.host == "127.0.0.1"


def test_an_unknown_key_names_file_key_value_and_what_is_allowed() -> None:
    assert mistakes(variants={"a": {"source": "m", "replicsa": 2}}) == (
        "prod.yaml: variants.a.replicsa: unknown key, got 2; allowed: batching, card, colocate, "
        "device, engine, limits, optional, options, processed, replicas, resources, "
        "response_cache, sequences, source, threads (did you mean 'replicas'?)"
    )


def test_an_unknown_key_deep_in_a_union_names_the_keys_of_every_step() -> None:
    said = mistakes(
        ensembles={
            "x": {
                "inputs": ["i"],
                "outputs": ["o"],
                "steps": [{"model": "a", "outputs": {"y": "o"}, "ouputs": {}}],
            }
        }
    )

    assert "ouputs" in said
    assert "unknown key" in said


def test_a_wrong_engine_names_the_engines() -> None:
    said = mistakes(variants={"a": {"source": "m", "engine": "onnx"}})

    assert "variants.a.engine" in said
    assert "'onnx'" in said
    assert "allowed: 'onnxruntime', 'torch', 'python' or 'fake'" in said


def test_a_number_out_of_range_names_the_range() -> None:
    said = mistakes(variants={"a": {"source": "m", "batching": {"max_batch_size": 0}}})

    assert "variants.a.batching.max_batch_size" in said
    assert "got 0; allowed: >= 1" in said


def test_every_mistake_is_told_at_once() -> None:
    said = mistakes(variants={"a": {"source": "m", "x": 1, "threads": 0}})

    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiments": {"e": {"split": {"zzz": 1}}}}, "no such variant; allowed: a, b"),
        ({"experiments": {"a": {"split": {"a": 1}}}}, "already taken in variants"),
        ({"experiments": {"e": {"split": {"a": 0}}}}, "every weight in split is 0"),
        ({"experiments": {"e": {"split": {"a": -1}}}}, "split.a is -1"),
        ({"variants": {"stats": {"source": "m"}}}, "not a model name"),
        ({"variants": {"a": {}}}, "exactly one of `source`"),
        (
            {
                "variants": {
                    "a": {"source": "m", "batching": {"preferred_batch_sizes": [99]}},
                },
                "experiments": {},
            },
            "preferred_batch_sizes holds 99",
        ),
        (
            {
                "ensembles": {
                    "x": {
                        "inputs": ["i"],
                        "outputs": ["o"],
                        "steps": [{"model": "q", "outputs": {"y": "o"}}],
                    }
                }
            },
            "no model 'q'; allowed: a, b, e",
        ),
    ],
)
def test_what_does_not_hold_together_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(**changes)
