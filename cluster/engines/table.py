"""The engines by name. To add one: its line here, its name in `cluster.models.EngineName`."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from cluster.config.model_card import Format
from cluster.engines.engine import Engine, EngineSetup
from cluster.errors import ConfigError
from cluster.models import EngineName

# What is served and optimised here is nobody else's business, and these libraries tell it unasked.
# It must be said before they are imported; nothing of ours imports one of them before this file.
# ONNX Runtime sends names and hashes of models to Microsoft; who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO and NNCF send each conversion to Google Analytics, unless they find no such package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not there


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """Where the class is (imported only when used) and what it needs.

    `formats`: those it runs; of two engines for a format the first in the table is the default.
    `requires`: the package it imports; `install`: how to get it.
    """

    module: str
    class_name: str
    formats: tuple[Format, ...]
    requires: str = "numpy"
    install: str = ""


ENGINES: dict[EngineName, EngineEntry] = {
    "onnxruntime": EngineEntry(
        module="cluster.engines.onnxruntime",
        class_name="OnnxRuntimeEngine",
        formats=("onnx",),
        requires="onnxruntime",
        install='pip install "squadron-serve[cpu]", or [gpu] with an NVIDIA GPU',
    ),
    "openvino": EngineEntry(
        module="cluster.engines.openvino",
        class_name="OpenVinoEngine",
        formats=("openvino", "onnx"),
        requires="openvino",
        install='pip install "squadron-serve[openvino]"',
    ),
    "tensorrt": EngineEntry(
        module="cluster.engines.tensorrt",
        class_name="TensorRtEngine",
        formats=("onnx",),
        requires="tensorrt",
        install='pip install "squadron-serve[gpu,tensorrt]", on a machine with an NVIDIA GPU',
    ),
    "torch": EngineEntry(
        module="cluster.engines.torch",
        class_name="TorchEngine",
        formats=("torchscript", "torch_export", "aot_inductor", "huggingface", "causal_lm"),
        requires="torch",
        install='pip install "torch>=2.13,<2.14"',
    ),
    # Language models stream and are driven by a loop of their own: `cluster.engines.language`.
    "vllm": EngineEntry(
        module="cluster.engines.language.vllm",
        class_name="VllmEngine",
        formats=("causal_lm",),
        requires="vllm",
        install="make setup-llm",
    ),
    "python": EngineEntry(
        module="cluster.engines.python", class_name="PythonEngine", formats=("python",)
    ),
    "fake": EngineEntry(module="cluster.engines.fake", class_name="FakeEngine", formats=("fake",)),
}


def default_engine(model_format: Format) -> EngineName:
    """The engine that runs this format when the config names none."""
    for name, entry in ENGINES.items():
        if model_format in entry.formats:
            return name
    raise ConfigError(f"no engine runs format {model_format!r}", key="format", value=model_format)


def engine_name(text: str) -> EngineName:
    """Raises: ConfigError naming the engines that there are."""
    for name in ENGINES:
        if name == text:
            return name
    allowed = ", ".join(ENGINES)
    raise ConfigError(
        f"no engine {text!r}; allowed: {allowed}", key="engine", value=text, allowed=allowed
    )


def is_installed(name: EngineName) -> bool:
    """Whether what it needs is there. Imports nothing."""
    return find_spec(_entry(name).requires) is not None


def check_installed(name: EngineName) -> None:
    """Raises: ConfigError saying what to install. Imports nothing."""
    entry = _entry(name)
    if not is_installed(name):
        raise ConfigError(
            f"engine {name!r} is not installed: {entry.install}", key="engine", value=name
        )


def make_engine(name: EngineName, setup: EngineSetup) -> Engine:
    """The engine, not yet loaded.

    Raises: ConfigError when it is not installed or does not run the card's format.
    """
    entry = _entry(name)
    check_installed(name)
    if setup.card.format not in entry.formats:
        allowed = ", ".join(entry.formats)
        raise ConfigError(
            f"engine {name!r} runs format {allowed}; model {setup.card.name!r} is "
            f"{setup.card.format} (engine {default_engine(setup.card.format)!r})",
            key="engine",
            value=name,
            allowed=allowed,
        )
    made: type[Engine] = getattr(importlib.import_module(entry.module), entry.class_name)
    return made(setup)


def _entry(name: EngineName) -> EngineEntry:
    entry = ENGINES.get(name)
    if entry is None:
        allowed = ", ".join(ENGINES)
        raise ConfigError(
            f"no engine {name!r}; allowed: {allowed}", key="engine", value=name, allowed=allowed
        )
    return entry
