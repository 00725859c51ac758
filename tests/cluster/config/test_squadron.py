from __future__ import annotations

from typing import Any

import pytest

from cluster.config.squadron import SquadronConfig
from cluster.config.variant import BatchingConfig
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
        "prod.yaml: variants.a.replicsa: unknown key, got 2; allowed: autoscaling, batching, card, "
        "colocate, device, engine, limits, llm, optional, options, placement, "
        "preprocess_cache, processed, replicas, resources, response_cache, sequences, source, "
        "threads, version_of (did you mean 'replicas'?)"
    )


def test_a_version_of_nothing_or_of_a_version_is_named() -> None:
    of = {"source": "m/1", "version_of": "b"}
    said = mistakes(
        variants={"a": {"source": "m"}, "b": {"source": "m/2", "version_of": "x"}} | {"c": of},
        experiments={},
    )

    assert "variants.b.version_of: no such variant" in said
    assert "variants.c.version_of: no such variant, or itself a version of another" in said


def one_step(**step: Any) -> dict[str, Any]:
    return {"x": {"inputs": ["i"], "outputs": ["o"], "steps": [step]}}


def test_an_unknown_key_of_a_step_names_the_keys_of_its_kind_and_nothing_else() -> None:
    step = one_step(model="a", outputs={"y": "o"}, ouputs={})

    assert mistakes(ensembles=step) == (
        "prod.yaml: ensembles.x.steps.0.ouputs: unknown key, got {}; allowed: fallback, "
        "hedge_after_ms, inputs, model, outputs, timeout_ms (did you mean 'outputs'?)"
    )


def test_a_step_without_the_key_that_says_what_it_does_names_them_all() -> None:
    said = mistakes(ensembles=one_step(topk=5, input="y", labels_of="a"))

    assert said.startswith("prod.yaml: ensembles.x.steps.0: a step needs the key that says what")
    assert said.endswith("; allowed: model, switch, split, combine or top_k")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("device", ["tpu", "fpga", "cuda:x", "nonsense"])
def test_a_device_that_is_none_is_refused_with_what_is_allowed(device: str) -> None:
    said = mistakes(variants={"a": {"source": "m", "device": device}})

    assert said.startswith("prod.yaml: variants.a.device: ")
    assert f"got '{device}'; allowed: auto, cpu, cuda, mps" in said


def test_two_listeners_on_one_port_are_refused() -> None:
    said = mistakes(server={"http": {"port": 9000}, "grpc": {"port": 9000}})

    assert said == (
        "prod.yaml: server.grpc.port: http.port is the same, got 9000; allowed: a port of its own, "
        "or 0 for any free one"
    )


def test_several_listeners_may_leave_the_port_to_the_system() -> None:
    server = {"http": {"port": 0}, "grpc": {"port": 0}, "metrics": {"port": 0}}

    config = check_section(content(server=server), SquadronConfig, source="prod.yaml")

    assert config.server.grpc.port == 0


def test_a_section_whose_keys_do_not_fit_is_named_without_its_content() -> None:
    assert mistakes(variants={"a": {"threads": 1}}, experiments={}) == (
        "prod.yaml: variants.a: needs exactly one of `source` (a stored model) and `card` (inline)"
    )


def test_a_wrong_engine_names_the_engines() -> None:
    said = mistakes(variants={"a": {"source": "m", "engine": "onnx"}})

    assert "variants.a.engine" in said
    assert "'onnx'" in said
    assert (
        "allowed: 'onnxruntime', 'openvino', 'tensorrt', 'torch', 'vllm', 'python' or 'fake'"
        in said
    )


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
        (
            {"experiments": {"e": {"split": {"zzz": 1}}}},
            "experiments.e.split.zzz: no such variant or ensemble, got 'zzz'; allowed: a, b",
        ),
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
            "ensembles.x.steps.0.model: no such model, got 'q'; allowed: a, b, e",
        ),
    ],
)
def test_what_does_not_hold_together_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(**changes)


def test_a_section_of_several_kinds_without_its_kind_names_the_kinds() -> None:
    card = {
        "name": "m",
        "format": "onnx",
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        },
        "postprocess": {"knd": "binary"},
    }

    said = mistakes(variants={"a": {"card": card}}, experiments={})

    assert "variants.a.card.postprocess: the key 'kind' is required and missing" in said
    assert said.endswith("; allowed: binary, classify, mean_pool")


def test_engines_that_build_for_shapes_are_told_the_sizes_that_will_come() -> None:
    batching = BatchingConfig(preferred_batch_sizes=(2, 4), max_batch_size=16)

    assert batching.usual_sizes == (2, 4, 16)
    assert batching.model_copy(update={"mode": "off"}).usual_sizes[-1] == 1


def test_caps_below_what_min_replicas_promise_are_refused_at_the_start() -> None:
    scaled = {"source": "m", "autoscaling": {"min_replicas": 2, "max_replicas": 3, "cost": 2.5}}

    said = mistakes(variants={"a": scaled, "b": scaled}, autoscaling={"max_cost": 9})

    assert said == (
        "prod.yaml: autoscaling.max_cost: less than the min_replicas of all variants take, got "
        "9.0; allowed: at least 10"
    )
