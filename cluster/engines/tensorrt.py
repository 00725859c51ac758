"""ONNX models on TensorRT 10: a plan is built once for a kind of GPU and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.config.device import parse_device
from cluster.config.store import sha256_of
from cluster.engines.artefact import artefact_file
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.engines.device import refuse_device
from cluster.engines.engine import EngineFacts, EngineSetup
from cluster.engines.graph_signature import GraphTensor, check_graph_inputs, check_graph_outputs
from cluster.engines.memory import is_out_of_memory
from cluster.engines.plans.buffers import TORCH_DTYPES, TensorBuffer
from cluster.engines.plans.build import PLAN_FILE, Words, build_plan, load_tensorrt, timing_file
from cluster.engines.plans.settings import plan_key, plan_settings
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory, SquadronError
from cluster.processing.signature_check import check_inputs
from cluster.tensors import NUMPY_DTYPES, Array, Signature

_DATATYPE_OF = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "HALF": "FP16",
    "BF16": "BF16",
    "FLOAT": "FP32",
}
"""TensorRT's `DataType` names."""


class TensorRtEngine:
    """Format `onnx`, on an NVIDIA GPU.

    Loading builds a plan (minutes for a large model) or takes it from the artefact cache, where it
    lies by the model, the settings, the GPU and TensorRT's version. Options: `precision` (fp32,
    tf32, fp16, bf16, int8 of a QDQ graph), `max_batch_size` [largest batch of the variant, else 8],
    `opt_batch_size`, `min_shapes`, `opt_shapes`, `max_shapes` (`input:1x3x224x224,…`, needed where
    a size beside the batch is free), `workspace_mb`, `optimization_level` (0 to 5), `cache_dir`.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._device = parse_device(setup.device)
        self._signature = setup.card.raw_signature()
        self._settings = plan_settings(
            setup.options,
            self._signature,
            is_batched=setup.card.batched,
            batch_sizes=setup.batch_sizes,
        )
        for spec in (*self._signature.inputs, *self._signature.outputs):
            if spec.datatype not in TORCH_DTYPES:
                raise ConfigError(
                    f"{spec.name!r} is {spec.datatype} in the card; TensorRT has no such tensors",
                    key=f"signature.{spec.name}",
                )
        self._context: Any = None
        self._runtime: Any = None
        self._plan: Any = None
        self._stream: Any = None
        self._buffers: dict[str, TensorBuffer] = {}
        self._facts: EngineFacts | None = None

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        assert self._facts is not None, "facts are known after load"
        return self._facts

    def load(self) -> None:
        device = self._cuda_device()
        file = artefact_file(self._setup)
        trt = load_tensorrt()
        gpu = torch.cuda.get_device_name(device)
        major, minor = torch.cuda.get_device_capability(device)
        capability = f"sm_{major}{minor}"
        root = Path(self._settings.cache_dir) if self._settings.cache_dir else None
        cache = ArtefactCache(root)
        key = plan_key(
            self._settings,
            model_sha256=sha256_of(file),
            tensorrt=trt.__version__,
            gpu=gpu,
            compute_capability=capability,
        )
        timings = timing_file(cache.root, tensorrt=trt.__version__, gpu=gpu)
        with torch.cuda.device(device):
            hit = cache.get_or_build(
                key, lambda folder: build_plan(trt, file, self._settings, folder, timings)
            )
            content = (hit.folder / PLAN_FILE).read_bytes()
            words = Words()
            # Kept: the plan speaks to its runtime's logger as long as it lives.
            self._runtime = trt.Runtime(words.logger(trt))
            self._plan = self._runtime.deserialize_cuda_engine(content)
            if self._plan is None:
                raise ConfigError(
                    f"{hit.folder / PLAN_FILE}: TensorRT cannot load the plan: {words.last()}",
                    file=str(hit.folder / PLAN_FILE),
                    key="artefact",
                )
            self._check_signature(trt, file)
            self._context = self._plan.create_execution_context()
            if self._context is None:
                raise ConfigError(
                    f"{file}: TensorRT has too little memory to run it: {words.last()}",
                    file=str(file),
                    key="device",
                )
            # A stream of our own: on the default one TensorRT synchronises more than it must.
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        every = (*self._signature.inputs, *self._signature.outputs)
        self._buffers = {spec.name: TensorBuffer(spec, device) for spec in every}
        self._facts = EngineFacts(
            engine="tensorrt",
            provider=f"TensorRT {trt.__version__}, {gpu} {capability}, {self._settings.precision}",
            device=str(device),
            precision=self._setup.card.precision,
            threads=self._setup.threads,
            weight_bytes=len(content),
        )

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        run_zeros(self.infer, self._signature, batch_sizes, is_batched=self._setup.card.batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if self._context is None:
            raise EngineFailed("the engine is closed")
        check_inputs(inputs, self._signature, is_batched=self._setup.card.batched)
        for spec in self._signature.inputs:
            shape = inputs[spec.name].shape
            bounds = self._settings.profile[spec.name]
            if not bounds.holds(shape):
                raise InvalidRequest(
                    f"input {spec.name!r} has shape {list(shape)}; the plan was built for "
                    f"{list(bounds.least)} to {list(bounds.greatest)}",
                    tensor=spec.name,
                )
        try:
            return self._run(inputs)
        except SquadronError:
            raise
        except Exception as error:
            said = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:400] if str(error) else ''}"
            )
            if is_out_of_memory(error):
                raise OutOfMemory(f"TensorRT had too little memory: {said}") from None
            raise EngineFailed(f"TensorRT failed: {said}") from None

    def close(self) -> None:
        # In this order: a context must go before its plan, and the plan before its runtime.
        self._context = None
        self._plan = None
        self._runtime = None
        self._stream = None
        self._buffers = {}

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        context = self._context
        shapes: dict[str, tuple[int, ...]] = {}
        with torch.cuda.stream(self._stream):
            for spec in self._signature.inputs:
                array = np.asarray(inputs[spec.name], dtype=NUMPY_DTYPES[spec.datatype])
                buffer = self._buffers[spec.name]
                buffer.put(array)
                if not context.set_input_shape(spec.name, tuple(array.shape)):
                    raise InvalidRequest(
                        f"input {spec.name!r}: the plan refuses shape {list(array.shape)}",
                        tensor=spec.name,
                    )
                self._place(spec.name)
            if missing := context.infer_shapes():
                raise EngineFailed(f"TensorRT misses shapes of {', '.join(missing)}")
            for index in range(self._plan.num_io_tensors):
                self._place_output(self._plan.get_tensor_name(index), shapes)
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise EngineFailed("TensorRT could not start the batch")
            for spec in self._signature.outputs:
                self._buffers[spec.name].fetch(int(np.prod(shapes[spec.name], dtype=np.int64)))
        self._stream.synchronize()
        return {
            spec.name: self._buffers[spec.name].read(shapes[spec.name])
            for spec in self._signature.outputs
        }

    def _place_output(self, name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        if name in {spec.name for spec in self._signature.inputs}:
            return
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise EngineFailed(f"the size of output {name!r} depends on the data: not supported")
        shapes[name] = shape
        self._buffers[name].reserve(int(np.prod(shape, dtype=np.int64)))
        self._place(name)

    def _place(self, name: str) -> None:
        if not self._context.set_tensor_address(name, self._buffers[name].address):
            raise EngineFailed(f"TensorRT refuses the memory of {name!r}")

    def _cuda_device(self) -> torch.device:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        offered = ", ".join(f"cuda:{index}" for index in range(count)) or "nothing (no CUDA device)"
        index = self._device.index or 0
        if self._device.kind not in ("auto", "cuda") or index >= count:
            raise refuse_device(self._device, "tensorrt", offered)
        return torch.device("cuda", index)

    def _check_signature(self, trt: Any, file: Path) -> None:
        found: dict[Any, list[GraphTensor]] = {}
        for index in range(self._plan.num_io_tensors):
            name = self._plan.get_tensor_name(index)
            kind = self._plan.get_tensor_dtype(name).name
            tensor = GraphTensor(
                name=name,
                datatype=_DATATYPE_OF.get(kind, kind),
                shape=tuple(self._plan.get_tensor_shape(name)),
            )
            found.setdefault(self._plan.get_tensor_mode(name), []).append(tensor)
        inputs = found.get(trt.TensorIOMode.INPUT, [])
        outputs = found.get(trt.TensorIOMode.OUTPUT, [])
        check_graph_inputs(self._signature.inputs, inputs, file)
        check_graph_outputs(self._signature.outputs, outputs, file)
        # More outputs than the card names still need a place to be written to.
        known = {spec.name for spec in self._signature.outputs}
        extra = [tensor.name for tensor in outputs if tensor.name not in known]
        if extra:
            raise ConfigError(
                f"{file}: gives {', '.join(extra)} beside what the card names; name them there",
                file=str(file),
                key="signature.outputs",
            )
