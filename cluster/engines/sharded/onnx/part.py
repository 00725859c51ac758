"""One stage of a cut ONNX graph in an ONNX Runtime session of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from cluster.config.device import parse_device
from cluster.engines.memory import is_out_of_memory
from cluster.engines.onnxruntime import choose_providers
from cluster.engines.sharded.part import PartFacts, PartSetup, Step, Values
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory


class OnnxPart:
    """Tensors go by the graph's own names."""

    def __init__(self, setup: PartSetup) -> None:
        self._setup = setup
        self._session: Any = None

    def load(self) -> PartFacts:
        file = Path(self._setup.artefact)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._setup.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        device = parse_device(self._setup.shard.device)
        providers = choose_providers(device, ort.get_available_providers())
        try:
            self._session = ort.InferenceSession(str(file), options, providers=list(providers))
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"{file}: ONNX Runtime cannot load it: {said}", file=str(file), key="artefact"
            ) from None
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]
        return PartFacts(device=str(device), weight_bytes=file.stat().st_size, opened=(file.name,))

    def run(self, values: Values, step: Step) -> Values:
        if self._session is None:
            raise EngineFailed("the part is closed")
        try:
            found = self._session.run(self._outputs, {name: values[name] for name in self._inputs})
        except KeyError as error:
            raise InvalidRequest(f"the input {error} is missing") from None
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            if is_out_of_memory(error):
                raise OutOfMemory(f"ONNX Runtime had too little memory: {said}") from None
            raise EngineFailed(f"ONNX Runtime failed: {said}") from None
        return dict(zip(self._outputs, found, strict=True))

    def drop(self, sequences: Iterable[str]) -> None:
        """A cut graph has no caches."""

    def close(self) -> None:
        self._session = None
