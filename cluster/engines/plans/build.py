"""An ONNX graph as a TensorRT plan. Every function takes the `tensorrt` module, 10.x."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from cluster.engines.plans.settings import PlanSettings
from cluster.errors import ConfigError

PLAN_FILE = "model.plan"
INSTALL = 'pip install "squadron-serve[tensorrt]"'
LEAST_VERSION, BELOW_VERSION = 10, 11


def load_tensorrt() -> Any:
    """The library. Raises: ConfigError when it is missing, does not load, or is another major
    version: 11 takes precisions from the graph alone and has no builder flags for them."""
    try:
        library = importlib.import_module("tensorrt")
        version = str(library.__version__)
    except Exception as error:
        # Its bindings are on PyPI, its libraries come from NVIDIA's index: either may be missing.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"engine 'tensorrt' cannot load TensorRT: {lines[0]} ({INSTALL})",
            key="engine",
            value="tensorrt",
        ) from None
    major = int(version.split(".")[0])
    if not LEAST_VERSION <= major < BELOW_VERSION:
        raise ConfigError(
            f"engine 'tensorrt' is written for TensorRT 10; found {version} ({INSTALL})",
            key="engine",
            value=version,
            allowed="10.x",
        )
    return library


class Words:
    """What TensorRT said above the level of information, for the error that names the file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def logger(self, trt: Any) -> Any:
        kept, severity = self.lines, trt.ILogger.Severity
        told = (severity.INTERNAL_ERROR, severity.ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, level: Any, message: str) -> None:
                if level in told:
                    kept.append(message)

        return Logger()

    def last(self) -> str:
        return self.lines[-1][:400] if self.lines else "no reason given"


def build_plan(
    trt: Any, onnx_file: Path, settings: PlanSettings, folder: Path, timing_file: Path
) -> None:
    """Write `folder/model.plan`.

    Raises: ConfigError naming the node that TensorRT does not take, or what the builder said.
    """
    words = Words()
    logger = words.logger(trt)
    builder = trt.Builder(logger)
    # Batches have been explicit since TensorRT 10; the graph's own types decide where it says so.
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise parse_failure(onnx_file, errors)
    if settings.precision == "int8" and not _has_quantisation(trt, network):
        raise ConfigError(
            f"{onnx_file}: precision int8 takes a graph with quantise and dequantise nodes (QDQ); "
            "of signed numbers without zero points; recipe tensorrt-int8 makes one",
            file=str(onnx_file),
            key="options.precision",
            value="int8",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    config.builder_optimization_level = settings.optimization_level
    for name in settings.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    for name in settings.cleared_flags:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    profile = builder.create_optimization_profile()
    for name, shapes in settings.profile.items():
        profile.set_shape(name, shapes.least, shapes.usual, shapes.greatest)
    if config.add_optimization_profile(profile) < 0:
        raise ConfigError(
            f"{onnx_file}: TensorRT does not take the shapes of the profile: {words.last()}",
            file=str(onnx_file),
            key="options.max_shapes",
        )
    _use_timing_cache(config, timing_file)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ConfigError(
            f"{onnx_file}: TensorRT cannot build it: {words.last()}", file=str(onnx_file),
            key="artefact",
        )  # fmt: skip
    (folder / PLAN_FILE).write_bytes(bytes(plan))
    _keep_timing_cache(config, timing_file)


def parse_failure(onnx_file: Path, errors: Sequence[Any]) -> ConfigError:
    """The first error in words, with the node that it is about and how many more there are.

    `errors`: TensorRT's `ParserError` objects.
    """
    if not errors:
        return ConfigError(
            f"{onnx_file}: TensorRT cannot read it as ONNX", file=str(onnx_file), key="artefact"
        )
    first = errors[0]
    name, kind = first.node_name(), first.node_operator()
    node = f"node {name or first.node()!r} ({kind})" if kind else "the graph"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ConfigError(
        f"{onnx_file}: TensorRT does not take {node}: {first.desc()}{more}",
        file=str(onnx_file),
        key="artefact",
        value=name,
    )


def timing_file(root: Path, *, tensorrt: str, gpu: str) -> Path:
    """Kernel timings of earlier builds: TensorRT refuses those of another version or GPU."""
    clean = "".join(each if each.isalnum() else "-" for each in f"{tensorrt}-{gpu}")
    return root / "timing" / f"{clean}.cache"


def _has_quantisation(trt: Any, network: Any) -> bool:
    return any(
        network.get_layer(index).type == trt.LayerType.QUANTIZE
        for index in range(network.num_layers)
    )


def _use_timing_cache(config: Any, file: Path) -> None:
    content = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(content)
    if not config.set_timing_cache(cache, ignore_mismatch=False) and content:
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timing_cache(config: Any, file: Path) -> None:
    """Together with what another process has kept meanwhile, whole or not at all."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if file.is_file():
            cache.combine(config.create_timing_cache(file.read_bytes()), ignore_mismatch=False)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
            partial.write(bytes(cache.serialize()))
        os.replace(partial.name, file)
