"""What a model is to the rest of the system: the engines that can serve it, and its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["onnxruntime", "openvino", "tensorrt", "torch", "vllm", "python", "fake"]
"""The engines a config may name; `cluster.engines.table` holds the class of each."""

ModelState = Literal["READY", "LOADING", "UNAVAILABLE"]
"""As the repository index names them. UNAVAILABLE comes with a reason."""

MAX_THREADS = 256
"""Intra-op threads of one engine. More than any machine's cores only take threads from others: a
hundred thousand, asked for once, left none to any process of the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """One process of a replica that is cut: its layers `first_layer` to `last_layer`, of which it
    holds slice `tensor_rank` of `tensor_degree`, and the bytes of its weights."""

    rank: int
    stage: int
    device: str
    first_layer: int
    last_layer: int
    weight_bytes: int
    tensor_rank: int = 0
    tensor_degree: int = 1
