"""What a configuration leaves out, read from the artefact, as Triton completes it.

Source: the onnxruntime backend's documentation of auto-completion (default-max-batch-size 4, the
dynamic batcher where nothing else is said).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.optimization.signature import is_batched, onnx_signature, openvino_signature
from cluster.optimization.triton.repository import TritonModel
from cluster.protocols.triton.sequences import hidden_tensors
from cluster.protocols.triton.signature import has_signature

DEFAULT_MAX_BATCH_SIZE = 4
_ONNX_FILE = "model.onnx"
_OPENVINO_FILE = "model.xml"


def complete(model: TritonModel, *, reads_openvino: bool = True) -> Any:
    """The configuration with backend, tensors and batching of the newest version's ONNX or
    OpenVINO file.

    `reads_openvino`: not for a file that a caller sent, which is to be refused unread.

    Raises: ConfigError when the file cannot be read.
    """
    config = type(model.config)()
    config.CopyFrom(model.config)
    newest = model.folder / str(model.versions[-1])
    if not (config.backend or config.platform or config.default_model_filename):
        _complete_backend(config, newest)
    is_onnx = "onnxruntime" in (config.backend, config.platform.partition("_")[0])
    is_openvino = config.backend == "openvino" and reads_openvino
    if not (is_onnx or is_openvino) or has_signature(config):
        return config
    name = config.default_model_filename
    if is_onnx:
        found = onnx_signature(onnx_file(newest / (name or _ONNX_FILE)))
    else:
        found = openvino_signature(newest / (name or _OPENVINO_FILE))
    if config.max_batch_size == 0 and not model.is_complete_batch and is_batched(found):
        config.max_batch_size = DEFAULT_MAX_BATCH_SIZE
        if not config.WhichOneof("scheduling_choice"):
            config.dynamic_batching.SetInParent()
    _complete_tensors(config, found)
    return config


def onnx_file(path: Path) -> Path:
    """The graph's file; a folder of that name holds it with its external data."""
    return path / _ONNX_FILE if path.is_dir() else path


def _complete_backend(config: Any, folder: Path) -> None:
    named = ((_ONNX_FILE, "onnxruntime"), ("model.pt", "pytorch"), (_OPENVINO_FILE, "openvino"))
    for file, backend in named:
        if (folder / file).exists():
            config.backend = backend
            return
    for file, platform in (("model.plan", "tensorrt_plan"), ("model.py", "python")):
        if (folder / file).exists():
            config.platform = platform
            return


def _complete_tensors(config: Any, found: SignatureCard) -> None:
    first = 1 if config.max_batch_size > 0 else 0
    hidden_inputs, hidden_outputs = hidden_tensors(config)
    for tensors, cards, hidden in (
        (config.input, found.inputs, hidden_inputs),
        (config.output, found.outputs, hidden_outputs),
    ):
        known = {tensor.name: tensor for tensor in tensors}
        for card in cards:
            if card.name in hidden and card.name not in known:
                continue
            tensor = known.get(card.name)
            if tensor is None:
                tensor = tensors.add(name=card.name)
            if not tensor.data_type:
                tensor.data_type = _type_name(card)
            if not tensor.dims:
                tensor.dims.extend(card.shape[first:])


def _type_name(card: TensorCard) -> str:
    return "TYPE_STRING" if card.datatype == "BYTES" else f"TYPE_{card.datatype}"
