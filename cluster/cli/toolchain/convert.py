"""`squadron convert`: a model in another format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import (
    AsJson,
    Inputs,
    Model,
    Outputs,
    Store,
    bytes_of_mb,
    mendable,
    open_store,
    workspace,
)


def convert(
    model: Model,
    target: Annotated[
        Path, typer.Argument(help="FILE.onnx, .xml (OpenVINO), .ort, .tflite or .pte.")
    ],
    max_size_mb: Annotated[float | None, typer.Option(help="Refuse a file that is larger.")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Refuse a .tflite or .pte that is slower here, for a row.")
    ] = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX, as OpenVINO's own format, or for phones: ONNX Runtime's (.ort),
    LiteRT's (.tflite) or ExecuTorch's (.pte), the last two of torch modules.

    Examples:

      squadron convert my_net.py:Net net.onnx --input x:FP32:-1,64

      squadron convert efficientnet-lite0-int8 photos.ort --max-size-mb 8

      squadron convert my_net.py:Net net.pte --max-latency-ms 5

      squadron convert classifier.keras classifier.onnx
    """
    from cluster.optimization.export.convert import convert as run

    with (
        mendable(),
        workspace() as folder,
        RichProgress() as progress,
        progress.step(f"make {target.name}"),
    ):
        made = run(
            model,
            target,
            store=open_store(store),
            workspace=folder,
            inputs=tuple(inputs or ()),
            outputs=tuple(outputs or ()),
            max_bytes=bytes_of_mb(max_size_mb),
            max_latency_ms=max_latency_ms,
        )
        num_bytes = sum(file.stat().st_size for file in made)
    names = [str(file) for file in made]
    if as_json:
        print(json.dumps({"file": names[0], "bytes": num_bytes, "files": names}))
    else:
        print(f"{' with '.join(names)}: {num_bytes / 1e6:.3g} MB")
