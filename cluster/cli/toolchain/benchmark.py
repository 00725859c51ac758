"""`squadron benchmark`: what a model costs at each batch size."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import (
    AsJson,
    Inputs,
    Model,
    Outputs,
    Shape,
    Store,
    Threads,
    mendable,
    open_store,
    parse_shapes,
    parse_sizes,
    workspace,
)


def benchmark(
    model: Model,
    batch_sizes: Annotated[str, typer.Option(help="As in 1,8,32.")] = "1",
    threads: Threads = 1,
    engine: Annotated[
        str | None, typer.Option(help="The engine \\[default: that of the format].")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the sizes take turns.")] = 10,
    shape: Shape = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Latency, throughput and CPU time at each batch size, on random inputs, by the serving engine.

    Examples:

      squadron benchmark efficientnet-lite0 --batch-sizes 1,8,32 --json

      squadron benchmark model.onnx --engine openvino
    """
    from cluster.engines.table import engine_name
    from cluster.optimization.cache.fingerprint import hardware
    from cluster.optimization.intake.data import random_dataset
    from cluster.optimization.intake.model import open_model
    from cluster.optimization.measure.benchmark import benchmark as run
    from cluster.optimization.measure.variant import Variant

    with mendable(), workspace() as folder, RichProgress() as progress:
        sizes = parse_sizes(batch_sizes)
        with progress.step("open the model"):
            given = open_model(
                model,
                store=open_store(store),
                workspace=folder,
                inputs=tuple(inputs or ()),
                outputs=tuple(outputs or ()),
            )
        named = engine_name(engine) if engine else None
        variant = Variant(card=given.card, folder=given.folder, engine=named)
        data = random_dataset(given.card, given.onnx, num=4, shapes=parse_shapes(shape))
        with progress.step(f"measure {rounds} rounds of each batch size"):
            costs = run(
                variant, data.items, sizes, threads=threads, device=device, num_rounds=rounds
            )
    if as_json:
        content = {
            "model": given.name,
            "engine": named or "default",
            "threads": threads,
            "data": data.origin,
            "hardware": hardware().as_dict(),
            "batches": [cost.as_dict() for cost in costs],
        }
        print(json.dumps(content))
        return
    table = Table("batch", "p50 ms", "p99 ms", "CPU ms / item", "items/s", box=None)
    for cost in costs:
        p99 = cost.timing.p99_ms
        table.add_row(
            str(cost.batch_size),
            f"{cost.timing.p50_ms:.2f}",
            "-" if p99 is None else f"{p99:.2f}",
            f"{cost.timing.cpu_p50_ms / cost.batch_size:.2f}",
            f"{cost.items_per_s:.0f}",
        )
    Console(highlight=False).print(table)
