"""The part of a model's format."""

from __future__ import annotations

from cluster.config.device import parse_device
from cluster.engines.sharded.part import Part, PartSetup
from cluster.errors import ConfigError

SHARDED_FORMATS = ("huggingface", "onnx", "torch_export")


def make_part(setup: PartSetup) -> Part:
    """Raises: ConfigError for a format that cannot be cut, and naming layers and device for a
    device that this process has not."""
    _check_device(setup)
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


def _check_device(setup: PartSetup) -> None:
    shard = setup.shard
    device = parse_device(shard.device)
    if device.kind in ("auto", "cpu") or setup.card.format not in SHARDED_FORMATS:
        return
    offered = _offered(setup.card.format)
    wanted = f"cuda:{device.index or 0}" if device.kind == "cuda" else str(device)
    if wanted not in offered:
        layers = shard.layers
        raise ConfigError(
            f"layers {layers.start} to {layers.stop - 1} on {shard.device} (shard {shard.rank}): "
            f"there is no such device here; allowed: {', '.join(offered)}",
            key="placement.devices",
            value=shard.device,
            allowed=", ".join(offered),
        )


def _offered(format: str) -> list[str]:
    """Devices that the format's library drives here."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if format == "onnx":
        import onnxruntime

        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        return ["cpu", *(gpus if has_cuda else ())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else ())]


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
