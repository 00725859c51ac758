"""A stored model as a run of layers, and the files of its stages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cluster.config.model_card import ModelCard
from cluster.engines.sharded.make import refuse_format
from cluster.engines.sharded.options import check_transformers
from cluster.engines.sharded.stages import layers_of
from cluster.errors import ConfigError
from cluster.placement.partition import LayeredModel, Layout

ONNX_CUT = "cluster.engines.sharded.onnx.cut"
EXPORTED_CUT = "cluster.engines.sharded.exported.cut"


def layered_model(card: ModelCard, folder: Path, dtype: str = "float32") -> LayeredModel:
    """Raises: ConfigError for a model that cannot be cut, and for a tool that is not installed."""
    match card.format:
        case "huggingface":
            check_transformers()
            from cluster.engines.sharded.hf_layers import directory_layers

            return directory_layers(card, folder, dtype)
        case "onnx":
            check_onnx()
            return layers_of(folder / card.artefact, program=ONNX_CUT)
        case "torch_export":
            return layers_of(folder / card.artefact, program=EXPORTED_CUT)
        case other:
            raise refuse_format(other)


def stage_artefacts(card: ModelCard, folder: Path, layout: Layout) -> tuple[str, ...]:
    """The file of each stage, for a model that is cut into files; else nothing."""
    runs = [layout.stage(index)[0].layers for index in range(layout.num_stages)]
    match card.format:
        case "onnx":
            from cluster.engines.sharded.onnx.cut import stage_files

            return stage_files(folder / card.artefact, runs)
        case "torch_export":
            from cluster.engines.sharded.exported.cut import stage_files as exported_stage_files

            return exported_stage_files(folder / card.artefact, runs)
        case _:
            return ()


def check_onnx() -> None:
    """Raises: ConfigError saying what to install."""
    if find_spec("onnx") is None:
        raise ConfigError(
            "cutting an ONNX graph needs onnx: pip install 'squadron-serve[cpu,export]'",
            key="placement.strategy",
        )
