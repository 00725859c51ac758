"""A plan for people: tables, and a picture of devices with the shards on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.placement.search.plan import Plan, PlannedDevice
from cluster.units import human_bytes, human_seconds

BAR = 24
MAX_ROWS = 40
"""Of the tables and the picture; `--json` has everything."""


def show(plan: Plan, console: Console) -> None:
    """Models, devices, reasons, what was rejected."""
    console.print(_models(plan))
    console.print()
    for line in picture(plan):
        console.print(line, markup=False, no_wrap=True, crop=False)
    console.print()
    for line in _whys(plan):
        console.print(f"· {line}", markup=False)
    for reason in plan.reasons:
        console.print(f"· {reason}", markup=False)
    if plan.rejected:
        console.print(_rejected(plan))


def picture(plan: Plan) -> Iterator[str]:
    """A line a device: memory as a bar, a letter a model; the stage of its group."""
    stages = {
        (shard.site, replica.group): (shard.stage, shard.tensor_rank, replica.degrees)
        for replica in plan.replicas
        for shard in replica.shards
    }
    shown = 0
    for node, devices in groupby(plan.devices, key=lambda device: device.site.node):
        if shown >= MAX_ROWS:
            yield f"… {len(plan.devices) - shown} more devices: see --json or --svg"
            return
        yield node
        for device in devices:
            shown += 1
            where = stages.get((device.site, device.group))
            yield f"  {_line(device)}  {_place(device, where)}"


def _line(device: PlannedDevice) -> str:
    memory = device.site.device.memory_bytes
    filled = min(BAR, round(BAR * device.bytes_held / memory))
    bar = "█" * filled + "░" * (BAR - filled)
    used = f"{human_bytes(device.bytes_held)} of {human_bytes(memory)}"
    return f"{device.site.device.name:8} {bar} {used:24} busy {device.busy:4.0%}"


def _place(device: PlannedDevice, where: tuple[int, int, object] | None) -> str:
    if where is None:
        return f"group {device.group}, empty"
    stage, tensor_rank, degrees = where
    part = "" if str(degrees) == "single" else f" [{degrees}: stage {stage}, slice {tensor_rank}]"
    names = ", ".join(device.models[:4])
    more = f" and {len(device.models) - 4} more" if len(device.models) > 4 else ""
    return f"group {device.group}{part} {names}{more}"


def _models(plan: Plan) -> Table:
    table = Table("model", "weights", "facts", "copies", "how", "calls/s", "SLO", "in time")
    how: dict[str, set[str]] = {}
    for replica in plan.replicas:
        shape = f"{replica.fixed}, fixed" if replica.fixed else str(replica.degrees)
        how.setdefault(replica.model, set()).add(shape)
    worst = sorted(plan.models, key=lambda model: (model.attainment, model.name))
    shown = plan.models if len(plan.models) <= MAX_ROWS else worst[:MAX_ROWS]
    for model in shown:
        table.add_row(
            model.name,
            human_bytes(model.weight_bytes),
            model.facts,
            str(model.replicas),
            ", ".join(sorted(how.get(model.name, ())))
            + (f" ({model.fixed} left aside)" if model.left_aside else ""),
            f"{model.rate_per_s:.3g}",
            human_seconds(model.slo_s),
            f"{model.attainment:.1%}",
        )
    if len(shown) < len(plan.models):
        table.caption = f"the {MAX_ROWS} with most late calls of {len(plan.models)}"
    return table


def _whys(plan: Plan) -> Iterator[str]:
    """Why each model is cut as it is, with the bytes of its weights, caches and activations."""
    whys = dict.fromkeys((replica.model, replica.reason) for replica in plan.replicas)
    for name, why in list(whys)[:MAX_ROWS]:
        yield f"{name}: {why}"
    if len(whys) > MAX_ROWS:
        yield f"… {len(whys) - MAX_ROWS} more reasons: see --json"


def _rejected(plan: Plan) -> Table:
    table = Table("not taken", "why")
    for rejected in plan.rejected[:MAX_ROWS]:
        table.add_row(escape(rejected.what), escape(rejected.why))
    return table
