"""ONNX models and OpenVINO's own format on OpenVINO."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from cluster.config.device import parse_device
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
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed, OutOfMemory
from cluster.processing.signature_check import check_inputs
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Signature, TensorSpec

_DATATYPE_OF: dict[str, Datatype] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "bf16": "BF16",
    "f32": "FP32",
    "f64": "FP64",
}

PRECISIONS = ("f32", "bf16", "f16", "auto")
"""What products are computed in. OpenVINO's own choice (`auto`) is bf16 where the processor has it,
which changes the answers of an fp32 artefact: so it has to be asked for."""


class OpenVinoEngine:
    """Formats `openvino` (`model.xml`, its weights beside it in `model.bin`) and `onnx`.

    The checksum covers the artefact's own file, as with ONNX and its external data. Options:
    `precision`, one of f32 (default), bf16, f16, auto.
    """

    def __init__(self, setup: EngineSetup) -> None:
        check_option_names("openvino", setup.options, ("precision",))
        precision = setup.options.get("precision", "f32")
        if precision not in PRECISIONS:
            allowed = ", ".join(PRECISIONS)
            raise ConfigError(
                f"option precision is {precision!r}; allowed: {allowed}",
                key="options.precision",
                value=str(precision),
                allowed=allowed,
            )
        self._setup = setup
        self._device = parse_device(setup.device)
        self._precision = str(precision)
        self._signature = setup.card.raw_signature()
        self._request: Any = None
        self._ports: list[Any] = []
        self._facts: EngineFacts | None = None

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        assert self._facts is not None, "facts are known after load"
        return self._facts

    def load(self) -> None:
        if self._device.kind not in ("auto", "cpu"):
            raise refuse_device(self._device, "openvino", "cpu")
        file = artefact_file(self._setup)
        self._refuse_text()
        core = openvino_core()
        properties = {
            "INFERENCE_NUM_THREADS": self._setup.threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads of several replicas would share one core while another idles.
            "ENABLE_CPU_PINNING": False,
        }
        if self._precision != "auto":
            properties["INFERENCE_PRECISION_HINT"] = self._precision
        try:
            model = core.read_model(str(file))
            check_graph_inputs(
                self._signature.inputs, _graph(model.inputs, self._signature.inputs), file
            )
            check_graph_outputs(
                self._signature.outputs, _graph(model.outputs, self._signature.outputs), file
            )
            compiled = core.compile_model(model, "CPU", properties)
        except ConfigError:
            raise
        except Exception as error:
            raise _unreadable(file, error) from None
        ports = {name: port for port in compiled.outputs for name in port.get_names()}
        self._ports = [ports[spec.name] for spec in self._signature.outputs]
        self._request = compiled.create_infer_request()
        weights = file.with_suffix(".bin") if file.suffix == ".xml" else file
        self._facts = EngineFacts(
            engine="openvino",
            provider=f"OpenVINO CPU, {compiled.get_property('INFERENCE_PRECISION_HINT')}",
            device="cpu",
            precision=self._setup.card.precision,
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            weight_bytes=weights.stat().st_size if weights.is_file() else 0,
        )

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        run_zeros(self.infer, self._signature, batch_sizes, is_batched=self._setup.card.batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if self._request is None:
            raise EngineFailed("the engine is closed")
        check_inputs(inputs, self._signature, is_batched=self._setup.card.batched)
        # A view on a request's bytes may begin at any address, and be read-only.
        feeds = {
            spec.name: np.require(
                inputs[spec.name], dtype=NUMPY_DTYPES[spec.datatype], requirements=["C", "A"]
            )
            for spec in self._signature.inputs
        }
        try:
            found = self._request.infer(feeds)
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(f"OpenVINO had too little memory: {_said(error)}") from None
            raise EngineFailed(f"OpenVINO failed: {_said(error)}") from None
        return {
            # A copy: the request's own memory is written again by the next batch.
            spec.name: np.array(found[port], dtype=NUMPY_DTYPES[spec.datatype])
            for spec, port in zip(self._signature.outputs, self._ports, strict=True)
        }

    def close(self) -> None:
        self._request = None
        self._ports = []

    def _refuse_text(self) -> None:
        for spec in (*self._signature.inputs, *self._signature.outputs):
            if spec.datatype == "BYTES":
                raise ConfigError(
                    f"{spec.name!r} is BYTES in the card; OpenVINO's tensors of text are not used",
                    key=f"signature.{spec.name}",
                )


@cache
def openvino_core() -> ov.Core:
    """One for the whole process, never destroyed.

    OpenVINO 2026.4's CPU plugin gives the thread that makes it a signal stack of its own and, when
    it goes, puts back the one from before. Of two plugins that go in the order they came, the
    second puts back what the first has unmapped, and the next signal ends the process (measured:
    SIGSEGV where Python's handler should have run).
    """
    return ov.Core()


def read_graph(file: Path) -> tuple[list[GraphTensor], list[GraphTensor]]:
    """What a file takes and gives, without compiling it. Raises: ConfigError."""
    try:
        model = openvino_core().read_model(str(file))
    except Exception as error:
        raise _unreadable(file, error) from None
    return _graph(model.inputs, ()), _graph(model.outputs, ())


def _unreadable(file: Path, error: Exception) -> ConfigError:
    said = f"{file}: OpenVINO cannot load it: {_said(error)}"
    return ConfigError(said, file=str(file), key="artefact")


def _graph(ports: list[Any], card: tuple[TensorSpec, ...]) -> list[GraphTensor]:
    known = {spec.name for spec in card}
    return [
        GraphTensor(
            name=name,
            datatype=_DATATYPE_OF.get(
                port.element_type.get_type_name(), port.element_type.get_type_name()
            ),
            shape=tuple(-1 if dim.is_dynamic else dim.get_length() for dim in port.partial_shape)
            if port.partial_shape.rank.is_static
            else None,
        )
        for port in ports
        for name in _names(port, known)
    ]


def _names(port: Any, known: set[str]) -> list[str]:
    """The card's names of a port. It has more where a pass took out a node that changed nothing."""
    names = sorted(port.get_names())
    return [name for name in names if name in known] or names[:1]


def _said(error: Exception) -> str:
    """The last line that says something: the first ones are OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[-1][:500]
