"""`squadron validate`: the accuracy gate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import (
    AsJson,
    Data,
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

if TYPE_CHECKING:
    from cluster.optimization.gate.gate import Verdict


def validate(
    original: Model,
    optimised: Annotated[str, typer.Argument(help="The variant to judge, given in the same ways.")],
    data: Data = None,
    max_loss: Annotated[
        float, typer.Option(help="Points of accuracy that may be lost, with labels.")
    ] = 0.5,
    min_agreement: Annotated[
        float, typer.Option(help="Least share of decisions with the same best class.")
    ] = 0.98,
    min_cosine: Annotated[float, typer.Option(help="Least mean cosine to the original.")] = 0.985,
    max_items: Annotated[int, typer.Option(min=1, help="Items of the data to use.")] = 2000,
    shape: Shape = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """May OPTIMISED stand in for ORIGINAL? Exit code 1 when the accuracy gate fails.

    With labels the accuracy of both is compared item by item; without, their agreement. Without
    data the inputs are random: that finds a broken file and validates nothing.

    Examples:

      squadron validate efficientnet-lite0 efficientnet-lite0-int8 --data photos --json

      squadron validate model.onnx model-int8.onnx --data arrays --max-loss 1
    """
    from cluster.optimization.gate.gate import GateLimits
    from cluster.optimization.gate.validate import validate as run

    with (
        mendable(),
        workspace() as folder,
        RichProgress() as progress,
        progress.step(f"ask both, on {max_items} items at most"),
    ):
        verdict, dataset = run(
            original,
            optimised,
            store=open_store(store),
            workspace=folder,
            data=data,
            limits=GateLimits(
                max_accuracy_loss_points=max_loss,
                min_top1_agreement=min_agreement,
                min_cosine=min_cosine,
            ),
            max_items=max_items,
            shapes=parse_shapes(shape),
            inputs=tuple(inputs or ()),
            outputs=tuple(outputs or ()),
        )
    if as_json:
        print(json.dumps({"data": dataset.origin, **verdict.as_dict()}))
    else:
        _show(verdict, dataset.origin)
    if not verdict.passed:
        raise typer.Exit(1)


def _show(verdict: Verdict, origin: str) -> None:
    console = Console(highlight=False)
    table = Table(box=None, show_header=False)
    table.add_row("on", origin)
    agreement = verdict.agreement
    if verdict.accuracy is not None:
        for name, share in (
            ("accuracy before", verdict.accuracy.original),
            ("accuracy after", verdict.accuracy.optimised),
        ):
            table.add_row(name, f"{share.value:.2%} [{share.low:.2%}, {share.high:.2%}]")
        change = verdict.accuracy.change_points
        table.add_row(
            "change", f"{change.value:+.2f} points [{change.low:+.2f}, {change.high:+.2f}]"
        )
    if agreement.top1 is not None:
        top1 = agreement.top1
        table.add_row("top-1 agreement", f"{top1.value:.2%} [{top1.low:.2%}, {top1.high:.2%}]")
    table.add_row("cosine", f"{agreement.cosine.value:.5f}, least {agreement.cosine_min:.5f}")
    if agreement.kl is not None:
        table.add_row("KL", f"{agreement.kl:.2e} nats")
    table.add_row("max abs", f"{agreement.max_abs:.3g}")
    for reason in verdict.reasons:
        table.add_row("", reason)
    console.print(table)
    passed = "passed" if verdict.is_validated else "passed, NOT VALIDATED"
    console.print(passed if verdict.passed else "FAILED")
