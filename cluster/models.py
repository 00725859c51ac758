"""What a model is to the rest of the system: the engines that can serve it, and its state."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["onnxruntime", "openvino", "tensorrt", "torch", "vllm", "python", "fake"]
"""The engines a config may name; `cluster.engines.table` holds the class of each."""

ModelState = Literal["READY", "LOADING", "UNAVAILABLE"]
"""As the repository index names them. UNAVAILABLE comes with a reason."""
