"""The part of a model's format."""

from __future__ import annotations

from cluster.engines.sharded.part import Part, PartSetup
from cluster.errors import ConfigError

SHARDED_FORMATS = ("huggingface", "onnx", "torch_export")


def make_part(setup: PartSetup) -> Part:
    """Raises: ConfigError for a format that cannot be cut."""
    match setup.card.format:
        case "huggingface":
            from cluster.engines.sharded.torch_part import TorchPart

            return TorchPart(setup)
        case "onnx":
            from cluster.engines.sharded.onnx.part import OnnxPart

            return OnnxPart(setup)
        case "torch_export":
            from cluster.engines.sharded.exported.part import ExportedPart

            return ExportedPart(setup)
        case other:
            raise refuse_format(other)


def refuse_format(format: str) -> ConfigError:
    allowed = ", ".join(SHARDED_FORMATS)
    own = (
        "; its engine has degrees of its own, llm.tensor_parallel and llm.pipeline_parallel; or "
        "add its directory again for this: squadron models add DIR --format huggingface"
        if format == "causal_lm"
        else ""
    )
    return ConfigError(
        f"a model of format {format} cannot be cut into shards; allowed: {allowed}{own}",
        key="placement.strategy",
        value=format,
        allowed=allowed,
    )
