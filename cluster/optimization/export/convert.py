"""A model in another format: ONNX, OpenVINO's own, or ONNX Runtime's flat one for phones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.elsewhere.edge import LIBRARY_OF, make_edge_file
from cluster.optimization.export.graph_copy import copy_graph
from cluster.optimization.export.whole import beside, put, refuse_existing
from cluster.optimization.intake.files import external_data
from cluster.optimization.intake.model import GivenModel, open_model
from cluster.optimization.precision.quiet import quiet
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

MAX_ORT_BYTES = 2**31
"""A flat buffer counts its bytes with 31 bits."""
TARGETS = (".onnx", ".xml", ".ort", ".tflite", ".pte")


def convert(
    model: str | Path,
    target: Path,
    *,
    store: ModelStore,
    workspace: Path,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    max_bytes: int | None = None,
    max_latency_ms: float | None = None,
) -> tuple[Path, ...]:
    """Write `target` in the format of its suffix, whole or not at all; returns it and the files
    that belong to it.

    `.onnx`: ONNX, also of Keras and TensorFlow models where TensorFlow is, weights in
    `TARGET.data` beside it where they were not in the graph; `.xml`: OpenVINO, weights in `.bin`
    beside it; `.ort`: ONNX Runtime's format, optimised for ARM phones, loaded
    without a parser; `.tflite`, `.pte`: LiteRT's and ExecuTorch's, of torch modules and programs.
    `max_bytes`: the most it may weigh. `max_latency_ms`: the most that a row may take on this
    machine in one thread (files for phones only).

    Raises: ConfigError for a suffix or a source that cannot be converted, a file that is there
    already, and one that is too large.
    """
    suffix = target.suffix.lower()
    if suffix not in TARGETS:
        allowed = ", ".join(TARGETS)
        raise ConfigError(
            f"{target}: cannot tell the format by {suffix!r}; can be made: {allowed}",
            key="target",
            value=suffix,
            allowed=allowed,
        )
    refuse_existing([target, *([target.with_suffix(".bin")] if suffix == ".xml" else [])])
    given = open_model(model, store=store, workspace=workspace, inputs=inputs, outputs=outputs)
    if suffix in LIBRARY_OF:
        module, example = module_of(given)
        make_edge_file(module, example, target, max_bytes=max_bytes, max_latency_ms=max_latency_ms)
        return (target,)
    if given.onnx is None:
        from cluster.optimization.export.program import to_graph

        given = to_graph(given, workspace)
    assert given.onnx is not None, "`to_graph` made one"
    with beside(target) as folder:
        files = _write(given, given.onnx, folder, target)
        num_bytes = sum(file.stat().st_size for file in files)
        if max_bytes is not None and num_bytes > max_bytes:
            raise ConfigError(
                f"{target.name} would weigh {num_bytes / 1e6:.3g} MB, at most "
                f"{max_bytes / 1e6:g} MB are allowed; try an int8 variant first",
                key="max_size_mb",
                value=num_bytes,
                allowed=str(max_bytes),
            )
        return tuple(put(files, target))


def module_of(given: GivenModel) -> tuple[nn.Module, Mapping[str, Array]]:
    """The torch module behind a model, and one row of inputs.

    Raises: ConfigError for a graph: the converters of phones' files start from torch.
    """
    if given.module is not None and given.example is not None:
        return given.module, given.example
    if given.onnx is not None:
        raise ConfigError(
            f"{given.name} is an ONNX graph; .tflite and .pte are made of a torch module "
            "(file.py:Class), a .pt2 or a TorchScript file. For a graph there is .ort",
            key="model",
        )
    from cluster.optimization.export.program import load_program
    from cluster.optimization.intake.random_inputs import random_items

    (example,) = random_items(given.card, 1)
    return load_program(given), example


def _write(given: GivenModel, source: Path, folder: Path, target: Path) -> list[Path]:
    made = folder / target.name
    match target.suffix.lower():
        case ".onnx":
            return copy_graph(source, made)
        case ".xml":
            if find_spec("openvino") is None:
                raise ConfigError(
                    'OpenVINO is not installed: pip install "squadron-serve[openvino]"',
                    key="target",
                )
            import openvino as ov

            with quiet():
                model = ov.convert_model(str(source))
                ov.save_model(model, str(made), compress_to_fp16=False)
            return [made, made.with_suffix(".bin")]
        case _:
            return [_ort(source, made)]


def _ort(source: Path, made: Path) -> Path:
    """With the optimisations that hold on every processor, not those for the one we are on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(made)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = str(error).splitlines()[0]
        files = (source, *external_data(source, "onnx"))
        num_bytes = sum(file.stat().st_size for file in files)
        if num_bytes >= MAX_ORT_BYTES:
            # All that it says is that it failed to save.
            said = f"an .ort file holds 2 GiB at most, the model has {num_bytes / 2**30:.1f} GiB"
        raise ConfigError(f"{source}: cannot be converted: {said}", file=str(source)) from None
    return made
