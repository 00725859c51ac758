"""`squadron optimize`: search for a faster variant, with the accuracy it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

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
    Threads,
    Tune,
    bytes_of_mb,
    mendable,
    open_store,
    parse_shapes,
    parse_tuning,
)
from cluster.config.store import ModelStore
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.search.choose import Constraints
from cluster.optimization.search.optimize import Wish
from cluster.optimization.search.recipe import level_named
from cluster.optimization.search.report import OptimizeReport


def optimize(
    model: Model,
    level: Annotated[str, typer.Option(help="basic, balanced or max.")] = "balanced",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the variant and the report [./NAME-optimised].")
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Put the chosen variant into the store under this name.")
    ] = None,
    max_loss: Annotated[
        float, typer.Option(help="Points of accuracy that may be lost, with labels.")
    ] = 0.5,
    min_agreement: Annotated[
        float, typer.Option(help="Least share of decisions with the same best class.")
    ] = 0.98,
    min_cosine: Annotated[float, typer.Option(help="Least mean cosine to the original.")] = 0.985,
    max_latency_ms: Annotated[float | None, typer.Option(help="Greatest median latency.")] = None,
    max_p99_ms: Annotated[float | None, typer.Option(help="Greatest p99 latency.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Greatest size of the file.")] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Only this recipe; again for more.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="Another architecture for the same task, on the same front."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a call when measuring.")] = 1,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds in which variants take turns.")] = 10,
    tune: Tune = None,
    threads: Threads = 1,
    shape: Shape = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="The artefact cache [$SQUADRON_ARTEFACT_CACHE].")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Build variants on this machine, drop those that lose accuracy, measure the rest in turns.

    What was built is cached: a search that was stopped goes on where it was. Without data the
    inputs are random and no variant is validated.

    Examples:

      squadron optimize model.onnx --level basic --json

      squadron optimize efficientnet-lite0 --level max --data photos --add photos-fast

      squadron optimize my_net.py:Net --level max --data arrays --tune prune_ratio=0.5
    """
    with mendable("what was built is kept, and the same command goes on from there"):
        wish = Wish(
            level=level_named(level),
            constraints=_constraints(max_latency_ms, max_p99_ms, max_size_mb),
            limits=GateLimits(
                max_accuracy_loss_points=max_loss,
                min_top1_agreement=min_agreement,
                min_cosine=min_cosine,
            ),
            data=data,
            recipes=tuple(recipe or ()),
            candidates=tuple(candidate or ()),
            inputs=tuple(inputs or ()),
            outputs=tuple(outputs or ()),
            shapes=parse_shapes(shape),
            threads=threads,
            batch_size=batch_size,
            num_rounds=rounds,
            tuning=parse_tuning(tune),
        )
        target = out if out is not None else Path(f"{_stem(model)}-optimised")
        report, section = _search(model, wish, target, add, open_store(store), cache_dir)
    if as_json:
        print(json.dumps({**report.as_dict(), "serve": {add: section} if section else None}))
    else:
        show(report, target / "report.html")
        _show_section(add, section)


def _show_section(name: str | None, section: Mapping[str, object] | None) -> None:
    if section:
        print("Served as it was measured, and as an arm of an experiment, by this in `variants:`")
        print(f"  {name}: {_in_a_line(section)}")


def _in_a_line(section: Mapping[str, object]) -> str:
    """YAML of the flow kind."""
    parts = [
        f"{key}: {_in_a_line(value) if isinstance(value, Mapping) else value}"
        for key, value in section.items()
    ]
    return "{" + ", ".join(parts) + "}"


def _constraints(
    latency_ms: float | None, p99_ms: float | None, size_mb: float | None
) -> Constraints:
    return Constraints(
        max_latency_ms=latency_ms, max_p99_ms=p99_ms, max_size_bytes=bytes_of_mb(size_mb)
    )


def _stem(model: str) -> str:
    """What the folder is named after: the file, the class or the stored model."""
    if Path(model).exists():
        return Path(model).stem
    return model.rpartition(":")[2] if ".py:" in model else model.partition("/")[0]


def _search(
    model: str, wish: Wish, target: Path, add: str | None, store: ModelStore, cache_dir: Path | None
) -> tuple[OptimizeReport, dict[str, object] | None]:
    from cluster.engines.cache.artefact_cache import ArtefactCache
    from cluster.optimization.search.keep import (
        add_to_store,
        check_free,
        check_name,
        keep,
        serve_section,
    )
    from cluster.optimization.search.optimize import optimize as search

    check_free(target)
    if add is not None:
        check_name(add)
    with RichProgress() as progress:
        cache = ArtefactCache(cache_dir)
        report = keep(search(model, wish, store=store, cache=cache, progress=progress), target)
    if add is None:
        return report, None
    return report, serve_section(report, add_to_store(report, store, add))


def show(report: OptimizeReport, page: Path | None) -> None:
    """`page`: where the whole report was written."""
    console = Console(highlight=False)
    table = Table("variant", "p50 ms", "CPU ms", "speed-up", "MB", "peak MB", "quality", box=None)
    for column in table.columns[:6]:
        column.no_wrap = True
    for each in report.candidates:
        if each.timing is None or each.speedup is None:
            continue
        star = "*" if each is report.chosen else ("+" if each.is_on_front else " ")
        table.add_row(
            f"{star} {each.name}",
            f"{each.timing.p50_ms:.2f}",
            f"{each.timing.cpu_p50_ms:.2f}",
            f"{each.speedup.value:.2f}",
            f"{each.size_bytes / 1e6:.1f}",
            f"{each.peak_bytes / 1e6:.0f}" if each.peak_bytes else "-",
            each.quality,
        )
    console.print(table)
    for each in report.candidates:
        if each.timing is None:
            console.print(f"  {each.name}: {each.status}: {each.reason}")
    console.print(f"* chosen, + on the front. Data: {report.data}. Baseline: {report.baseline}.")
    for name, why in report.ignored.items():
        console.print(f"{name} did not act: {why}.")
    console.print(report.reason)
    if not report.is_real_data:
        console.print("NOT VALIDATED: the inputs were random.")
    if page is not None:
        console.print(str(page))
