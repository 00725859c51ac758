"""`squadron inspect`: what a model is, its parameters and operations."""

from __future__ import annotations

import json

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
    mendable,
    open_store,
    parse_shapes,
    workspace,
)


def inspect(
    model: Model,
    shape: Shape = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Signature, number of parameters, bytes of weights and floating-point operations of a model.

    A multiplication and an addition are two operations; for one row of the shapes printed.

    Examples:

      squadron inspect efficientnet-lite0

      squadron inspect model.onnx --shape image=1,3,320,320 --json
    """
    from cluster.optimization.measure.inspect import inspect_model

    with mendable(), workspace() as folder, RichProgress() as progress, progress.step("count"):
        given, cost = inspect_model(
            model,
            store=open_store(store),
            workspace=folder,
            inputs=tuple(inputs or ()),
            outputs=tuple(outputs or ()),
            shapes=parse_shapes(shape),
        )
    card = given.card
    if as_json:
        signature = card.signature.model_dump(mode="json")
        head = {"model": given.name, "format": card.format, "sha256": given.sha256}
        print(json.dumps({**head, "precision": card.precision, **signature, **cost.as_dict()}))
        return
    table = Table(box=None, show_header=False)
    table.add_row("model", f"{given.name} ({card.format}, {card.precision})")
    for what in ("inputs", "outputs"):
        for tensor in getattr(card.signature, what):
            table.add_row(what[:-1], f"{tensor.name} {tensor.datatype} {tensor.shape}")
    shapes = ", ".join(f"{name} {list(each)}" for name, each in cost.shapes.items())
    table.add_row("parameters", _short(cost.num_parameters, ""))
    table.add_row("weights", _short(cost.weight_bytes, "B"))
    table.add_row("operations", f"{_short(cost.flops, 'FLOP')} for {shapes}")
    for each in cost.operators[:8]:
        if each.flops:
            share = each.flops / max(1, cost.flops)
            table.add_row("", f"{each.operator} x {each.count}: {share:.1%}")
    if cost.not_counted:
        said = ", ".join(f"{name} x {count}" for name, count in cost.not_counted.items())
        table.add_row("not counted", said)
    Console(highlight=False).print(table)


def _short(number: int, unit: str) -> str:
    """As 4.74 kFLOP, 22.70 MB, 8.18 GFLOP."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {prefix}{unit}"
    return f"{number} {unit}".rstrip()
