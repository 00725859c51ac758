"""`enable_*` of a server's model: which keys of its YAML are sent, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.client.model import Model
from cluster.errors import CapacityError, ConfigError, InvalidRequest, SquadronError
from cluster.tensors import Signature, TensorSpec

TEXT = ("text_input", "text_output")
TOKENS = ("input_ids", "token")


@dataclass
class Told:
    """A server that notes what it is asked to load, or refuses."""

    refusal: SquadronError | None = None
    loads: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def load(self, model: str, config: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        message = json.loads(config)
        assert message["name"] == model
        self.loads.append((model, json.loads(message["parameters"]["settings"]["string_value"])))


class Served:
    """A backend of that server, by engine and signature."""

    is_remote = True
    is_batched = False
    name = "m"

    def __init__(self, server: Told, engine: str, names: tuple[str, str]) -> None:
        self.server = server
        self.config = {"backend": engine}
        given, taken = (TensorSpec(name=n, datatype="BYTES", shape=(1,)) for n in names)
        self.signature = Signature(inputs=(given,), outputs=(taken,))

    def infer(self, inputs: Any, outputs: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def model(server: Told, engine: str = "onnxruntime", names: tuple[str, str] = ("x", "y")) -> Model:
    return Model(Served(server, engine, names))


def test_a_gpu_is_the_key_device() -> None:
    server = Told()

    setting = model(server).enable_gpu_acceleration("cuda:1")

    assert setting
    assert server.loads == [("m", {"device": "cuda:1"})]
    assert setting.says == "device: cuda:1; the server serves it so from now on, to everyone"
    with pytest.raises(ConfigError, match="no GPU"):
        model(server).enable_gpu_acceleration("cpu")


@pytest.mark.parametrize(
    ("engine", "names", "strategy", "sent"),
    [
        ("torch", TEXT, "static", {"llm": {"cache_growth": "static", "max_model_len": 64}}),
        ("vllm", TEXT, "static", {"llm": {"max_model_len": 64}}),
        ("torch", TOKENS, "static", {"placement": {"kv_cache": "static", "kv_cache_tokens": 64}}),
        ("torch", TOKENS, "dynamic", {"placement": {"kv_cache": "dynamic"}}),
    ],
)
def test_keys_and_values_are_kept_as_the_engine_can(
    engine: str, names: tuple[str, str], strategy: str, sent: dict[str, Any]
) -> None:
    server = Told()

    setting = model(server, engine, names).enable_kv_cache(64, strategy)

    assert setting
    assert server.loads == [("m", sent)]


def test_a_model_that_generates_nothing_is_not_loaded_again() -> None:
    server = Told()

    assert not model(server).enable_kv_cache(64)
    assert not model(server, "torch", ("input_ids", "logits")).enable_kv_cache(64)
    assert server.loads == []


def test_resident_weights_are_a_key_of_the_placement() -> None:
    server = Told()

    found = model(server, "torch", TOKENS).enable_memory_optimization(True, True, 64)

    assert server.loads == [("m", {"placement": {"max_memory_mb": 64}})]
    assert {name: bool(setting) for name, setting in found.items()} == {
        "max_memory_mb": True,
        "enable_cpu_offload": True,
        "enable_activation_checkpointing": False,
    }
    alone = model(server, "torch", TOKENS).enable_memory_optimization(enable_cpu_offload=True)
    assert not alone["enable_cpu_offload"]
    assert "give max_memory_mb" in alone["enable_cpu_offload"].says


def test_attention_of_a_graph_is_fused_by_a_search_and_that_of_language_models_is_already() -> None:
    server = Told()

    assert model(server, "vllm", TEXT).enable_efficient_attention()
    assert model(server, "torch", TOKENS).enable_efficient_attention()
    graph = model(server).enable_efficient_attention()
    assert not graph
    assert "client.optimize(client.load_model('m'), level='basic')" in graph.says
    assert server.loads == []


def test_a_server_that_loads_nothing_on_request_says_what_to_write() -> None:
    server = Told(CapacityError("explicit model load / unload is not allowed if polling is on"))
    asked = model(server, "torch", TOKENS)

    gpu = asked.enable_gpu_acceleration()
    memory = asked.enable_memory_optimization(True, False, 64)

    assert not gpu
    assert gpu.says.endswith("below variants.m: device: cuda")
    assert not memory["max_memory_mb"]
    told = "placement: {strategy: layer, shards: 1, max_memory_mb: 64}"
    assert memory["max_memory_mb"].says.endswith(told)
    assert not memory["enable_cpu_offload"]


def test_what_the_server_refuses_is_the_reason_and_the_model_stays() -> None:
    server = Told(InvalidRequest("failed to load 'm', no node has a GPU"))

    setting = model(server).enable_gpu_acceleration()

    assert not setting
    assert setting.says == "failed to load 'm', no node has a GPU"
