"""ONNX models on ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from cluster.config.device import Device, parse_device
from cluster.engines.artefact import artefact_file
from cluster.engines.device import refuse_device
from cluster.engines.engine import EngineFacts, EngineSetup
from cluster.engines.graph_signature import (
    GraphTensor,
    check_graph_inputs,
    check_graph_outputs,
)
from cluster.engines.memory import is_out_of_memory
from cluster.engines.options import check_option_names
from cluster.engines.plans.providers import OPTIONS as provider_option_names
from cluster.engines.plans.providers import TENSORRT, provider_options
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory, SquadronError
from cluster.processing.signature_check import check_inputs
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Signature, TensorSpec, bytes_array

AUTO_ORDER = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "OpenVINOExecutionProvider",
    "CPUExecutionProvider",
)
_CPU = "CPUExecutionProvider"
# Apple's GPU is reached by way of Core ML.
_PROVIDER_OF = {
    "cpu": _CPU,
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
_DEVICE_OF = {
    "TensorrtExecutionProvider": "cuda",
    "CUDAExecutionProvider": "cuda",
    "CoreMLExecutionProvider": "coreml",
    "DmlExecutionProvider": "directml",
}
_HAS_INDEX = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "DmlExecutionProvider")

_DATATYPE_OF: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ONNX_BFLOAT16 = 16

_OPTIMIZATION = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

ProviderChoice = tuple[str, dict[str, str]]


def choose_providers(
    device: Device,
    available: Sequence[str],
    *,
    told: Mapping[str, Mapping[str, str]] | None = None,
    wants_tensorrt: bool = False,
) -> tuple[ProviderChoice, ...]:
    """The execution providers to try, best first; the CPU is always last, for what others lack.

    `told`: provider -> its options. `wants_tensorrt`: on `cuda`, TensorRT's before CUDA's own.

    Raises: ConfigError naming what this machine offers, for a device that it has not.
    """
    wanted: tuple[str, ...] = AUTO_ORDER
    if device.kind != "auto":
        wanted = (_PROVIDER_OF[device.kind], _CPU)
        if wants_tensorrt and device.kind == "cuda":
            wanted = (TENSORRT, *wanted)
        if wanted[0] not in available:
            kinds = [kind for kind, provider in _PROVIDER_OF.items() if provider in available]
            raise refuse_device(device, "onnxruntime", ", ".join(kinds))
    index = {} if device.index is None else {"device_id": str(device.index)}
    return tuple(
        (name, {**(told or {}).get(name, {}), **(index if name in _HAS_INDEX else {})})
        for name in dict.fromkeys(wanted)
        if name in available
    )


class OnnxRuntimeEngine:
    """Format `onnx`.

    The checksum covers the artefact's own file; weights in files beside it (external data) are
    found through it and must lie in its folder. Text goes in and comes out as UTF-8. Options:
    `graph_optimization`, one of all (default), extended, basic, none; on NVIDIA GPUs `provider`
    (auto, tensorrt), `precision` (fp32, tf32, fp16, bf16, int8) and `cudnn_search`
    (`plans.providers`).
    """

    def __init__(self, setup: EngineSetup) -> None:
        known = ("graph_optimization", *provider_option_names)
        check_option_names("onnxruntime", setup.options, known)
        self._told = provider_options(setup.options)
        level = setup.options.get("graph_optimization", "all")
        if level not in _OPTIMIZATION:
            allowed = ", ".join(_OPTIMIZATION)
            raise ConfigError(
                f"option graph_optimization is {level!r}; allowed: {allowed}",
                key="options.graph_optimization",
                value=str(level),
                allowed=allowed,
            )
        self._setup = setup
        self._device = parse_device(setup.device)
        self._optimization = _OPTIMIZATION[str(level)]
        self._signature = setup.card.raw_signature()
        self._output_names = [spec.name for spec in self._signature.outputs]
        every = (*self._signature.inputs, *self._signature.outputs)
        self._has_bfloat16 = any(spec.datatype == "BF16" for spec in every)
        self._session: ort.InferenceSession | None = None
        self._facts: EngineFacts | None = None

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        assert self._facts is not None, "facts are known after load"
        return self._facts

    def load(self) -> None:
        providers = choose_providers(
            self._device,
            ort.get_available_providers(),
            told=self._told,
            wants_tensorrt=self._setup.options.get("provider") == "tensorrt",
        )
        file = artefact_file(self._setup)
        session = self._open(file, providers)
        found = session.get_providers()[0]
        if self._device.kind != "auto" and found != providers[0][0]:
            # The build has the provider, its libraries did not load; the runtime only logs that.
            raise refuse_device(self._device, "onnxruntime", _DEVICE_OF.get(found, "cpu"))
        check_graph_inputs(self._signature.inputs, _graph(session.get_inputs()), file)
        check_graph_outputs(self._signature.outputs, _graph(session.get_outputs()), file)
        self._session = session
        kind = _DEVICE_OF.get(found, "cpu")
        has_index = self._device.index is not None and found in _HAS_INDEX
        self._facts = EngineFacts(
            engine="onnxruntime",
            provider=found,
            device=f"{kind}:{self._device.index}" if has_index else kind,
            precision=self._setup.card.precision,
            threads=self._setup.threads,
            # External data is named after the file it belongs to, by custom of the exporters.
            weight_bytes=sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")),
        )

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        run_zeros(self.infer, self._signature, batch_sizes, is_batched=self._setup.card.batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise EngineFailed("the engine is closed")
        check_inputs(inputs, self._signature, is_batched=self._setup.card.batched)
        feeds = {spec.name: _to_runtime(inputs[spec.name], spec) for spec in self._signature.inputs}
        try:
            if self._has_bfloat16:
                outputs = self._run_values(session, feeds)
            else:
                outputs = session.run(self._output_names, feeds)
        except SquadronError:
            raise
        except Exception as error:
            raise _refusal(error) from None
        return {
            spec.name: _from_runtime(array, spec)
            for spec, array in zip(self._signature.outputs, outputs, strict=True)
        }

    def close(self) -> None:
        self._session = None

    def _open(self, file: Path, providers: tuple[ProviderChoice, ...]) -> ort.InferenceSession:
        if any(name == "CUDAExecutionProvider" for name, _ in providers):
            # CUDA and cuDNN from the wheels that torch and the runtime bring.
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._setup.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._optimization
        # Waiting threads that spin take the cores of the other replicas.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its errors reach us as exceptions; on the console it would say them a second time.
        options.log_severity_level = 4
        try:
            return ort.InferenceSession(str(file), options, providers=list(providers))
        except Exception as error:
            said = str(error).splitlines()[0]
            raise ConfigError(
                f"{file}: ONNX Runtime cannot load it: {said}", file=str(file), key="artefact"
            ) from None

    def _run_values(self, session: ort.InferenceSession, feeds: dict[str, Array]) -> list[Array]:
        """numpy has no bfloat16 of its own, so the runtime takes and gives its bits."""
        values = {
            spec.name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                feeds[spec.name].view(np.uint16), _ONNX_BFLOAT16
            )
            if spec.datatype == "BF16"
            else ort.OrtValue.ortvalue_from_numpy(feeds[spec.name])
            for spec in self._signature.inputs
        }
        found = session.run_with_ort_values(self._output_names, values)
        return [
            _bfloat16_of(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(self._signature.outputs, found, strict=True)
        ]


def _bfloat16_of(value: Any) -> Array:
    if value.device_name() != "cpu":
        raise EngineFailed(f"a bfloat16 output stayed on {value.device_name()}")
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(raw), dtype=NUMPY_DTYPES["BF16"]).reshape(value.shape())


def _graph(nodes: Sequence[Any]) -> list[GraphTensor]:
    return [
        GraphTensor(
            name=node.name,
            datatype=_DATATYPE_OF.get(node.type, node.type),
            # A shape that the graph leaves open arrives empty, like a scalar's.
            shape=tuple(size if isinstance(size, int) else -1 for size in node.shape) or None,
        )
        for node in nodes
    ]


def _to_runtime(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype == "BYTES":
        try:
            texts = [item.decode() for item in array.flat]
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input {spec.name!r}: not UTF-8: {error.reason}", tensor=spec.name
            ) from None
        made = np.empty(len(texts), dtype=np.object_)
        made[:] = texts
        return made.reshape(array.shape)
    # A view on a request's bytes may begin at any address.
    return np.require(array, dtype=NUMPY_DTYPES[spec.datatype], requirements=["C", "A"])


def _from_runtime(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype == "BYTES":
        return bytes_array([str(item).encode() for item in array.flat], array.shape)
    return array


def _refusal(error: Exception) -> SquadronError:
    said = str(error).splitlines()[0][:500]
    # The runtime's class for "these inputs cannot be computed" (an index out of range, …).
    if type(error).__name__ == "InvalidArgument":
        return InvalidRequest(f"the model refuses the inputs: {said}")
    if is_out_of_memory(error):
        return OutOfMemory(f"ONNX Runtime had too little memory: {said}")
    return EngineFailed(f"ONNX Runtime failed: {type(error).__name__}: {said}")
