from __future__ import annotations

import json

import pytest

from cluster.config.variant import VariantConfig
from cluster.errors import InvalidRequest
from cluster.protocols.triton.model_config import parse_json
from cluster.protocols.triton.override import lay_over

OWN = VariantConfig.model_validate(
    {
        "source": "m",
        "threads": 2,
        "batching": {"max_batch_size": 8, "max_queue_delay_us": 300, "preferred_batch_sizes": [4]},
    }
)


def laid(text: str, *, is_batched: bool = True) -> VariantConfig:
    return lay_over(OWN, parse_json(text), is_batched=is_batched).variant


def test_a_number_in_quotes_is_a_number_and_the_rest_stays() -> None:
    found = laid('{"max_batch_size": "16"}')

    assert found.batching.max_batch_size == 16
    assert (found.batching.max_queue_delay_us, found.batching.preferred_batch_sizes) == (300, (4,))
    assert (found.source, found.threads) == ("m", 2)


def test_a_batcher_that_is_named_replaces_the_whole_batcher() -> None:
    found = laid('{"dynamic_batching": {"max_queue_delay_microseconds": 7}}').batching

    assert (found.max_batch_size, found.max_queue_delay_us) == (8, 7)
    assert found.preferred_batch_sizes == ()


def test_sequences_are_replaced_and_begin_with_what_they_began_with() -> None:
    state = {"input": "a", "output": "b", "datatype": "INT32", "shape": [1], "initial": 7}
    section = {"strategy": "oldest", "state": [state]}
    before = VariantConfig.model_validate({"source": "m", "sequences": section})
    sent = (
        '{"sequence_batching": {"max_sequence_idle_microseconds": 9, "direct": {}, "state": [{'
        '"input_name": "a", "output_name": "b", "data_type": "TYPE_INT32", "dims": [1]}]}}'
    )

    found = lay_over(before, parse_json(sent), is_batched=True).variant.sequences

    assert found is not None
    assert (found.strategy, found.max_sequence_idle_us) == ("direct", 9)
    assert found.state[0].initial == 7


def test_instances_become_replicas() -> None:
    found = laid('{"instance_group": [{"kind": "KIND_CPU", "count": 3}]}')

    assert (found.replicas, found.device) == (3, "cpu")


def test_what_has_no_effect_is_told() -> None:
    sent = '{"max_batch_size": 16, "parameters": {"unheard_of": {"string_value": "1"}}}'

    found = lay_over(OWN, parse_json(sent), is_batched=True)

    assert found.lost == ("parameters.unheard_of: no engine of ours has this parameter",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"max_batch_size": 2}', "preferred_batch_sizes holds 4"),
        ('{"sequence_batching": {}}', "sequence_batching"),
        ('{"model_operations": {"op_library_filename": ["x.so"]}}', "custom operators"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        laid(text)


def test_an_artefact_without_a_batch_dimension_is_not_batched() -> None:
    with pytest.raises(InvalidRequest, match="does not support batching"):
        laid('{"max_batch_size": 4}', is_batched=False)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"max_bach_size": 1}', '{"max_batch_size": "x"}'])
def test_what_is_no_model_configuration_says_so(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a model configuration"):
        parse_json(text)


def sent(placement: str) -> str:
    return json.dumps({"parameters": {"placement": {"string_value": placement}}})


def test_a_placement_is_sent_as_a_parameter() -> None:
    found = laid(sent('{"strategy": "tensor", "shards": 3}'))

    assert (found.placement.strategy, found.placement.num_shards) == ("tensor", 3)
    assert found.options == {}
    assert laid("{}").placement == OWN.placement


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ("{", "parameters.placement: not JSON"),
        ("3", "parameters.placement: expected an object, got 3"),
        ('{"strategy": "tensor"}', "placement: strategy tensor needs `shards`"),
        ('{"shard_map": {"block.0": "cpu"}}', "'block.0' names no layers"),
    ],
)
def test_a_placement_that_cannot_be_is_the_callers_mistake(placement: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        laid(sent(placement))


def set_to(settings: object, own: VariantConfig = OWN) -> VariantConfig:
    text = json.dumps({"parameters": {"settings": {"string_value": json.dumps(settings)}}})
    return lay_over(own, parse_json(text), is_batched=True).variant


def test_single_keys_are_laid_over_what_their_sections_say() -> None:
    own = VariantConfig.model_validate(
        {
            "source": "m",
            "llm": {"max_num_seqs": 3, "max_model_len": 99},
            "placement": {"strategy": "tensor", "shards": 2, "kv_cache": "static"},
        }
    )

    found = set_to(
        {
            "device": "cpu",
            "llm": {"cache_growth": "static", "max_model_len": 64},
            "placement": {"max_memory_mb": 8, "kv_cache": "dynamic"},
        },
        own.model_copy(update={"placement": OWN.placement}),
    )
    sharded = set_to({"placement": {"max_memory_mb": 8}}, own)

    assert (found.device, set_to({"device": "cuda:1"}).device) == ("cpu", "cuda:1")
    assert found.llm is not None
    assert (found.llm.cache_growth, found.llm.max_model_len, found.llm.max_num_seqs) == (
        "static",
        64,
        3,
    )
    assert (found.placement.strategy, found.placement.shards) == ("layer", 1)
    assert (found.placement.max_memory_mb, found.placement.kv_cache) == (8, "dynamic")
    assert (sharded.placement.strategy, sharded.placement.shards) == ("tensor", 2)
    assert (sharded.placement.max_memory_mb, sharded.placement.kv_cache) == (8, "static")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([1], "parameters.settings: expected an object"),
        ({"options": {}}, "settings.options is no setting; allowed: device, llm, placement"),
        ({"card": {"python_class": "os:system"}}, "settings.card is no setting"),
        ({"llm": {"chat_template": "/etc/passwd"}}, "llm.chat_template is no setting; allowed: "),
        ({"llm": {"lora": {"directory": "/"}}}, "llm.lora is no setting"),
        ({"llm": 3}, "settings.llm: expected an object"),
        ({"device": "tpu"}, "TPU"),
        ({"placement": {"max_memory_mb": -1}}, "max_memory_mb"),
    ],
)
def test_a_setting_that_cannot_be_is_the_callers_mistake(settings: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        set_to(settings)
