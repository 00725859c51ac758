"""`squadron profile`: where a model's time goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import (
    AsJson,
    Inputs,
    Outputs,
    Shape,
    Store,
    Threads,
    mendable,
    open_store,
    parse_shapes,
    workspace,
    writable,
)

if TYPE_CHECKING:
    from cluster.optimization.profile.report import ProfileReport


def profile(
    model: Annotated[str | None, typer.Argument(help="The model; left out with --live.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report here (a flame graph with --live).")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace here.")] = None,
    engine: Annotated[str | None, typer.Option(help="onnxruntime, openvino or torch.")] = None,
    calls: Annotated[int, typer.Option(min=1, help="Calls to average over.")] = 20,
    live: Annotated[
        int | None, typer.Option(help="Process id of a running server to look into by py-spy.")
    ] = None,
    seconds: Annotated[int, typer.Option(help="How long to watch with --live.")] = 10,
    threads: Threads = 1,
    shape: Shape = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Time and memory of every operator, bottlenecks in words, a flame view, a Chrome trace.

    Examples:

      squadron profile efficientnet-lite0 --html profile.html

      squadron profile model.onnx --engine openvino --trace trace.json --json

      squadron profile --live 4242 --html flames.svg
    """
    from cluster.engines.table import engine_name
    from cluster.errors import ConfigError
    from cluster.optimization.export.whole import write_whole
    from cluster.optimization.profile.collect import profile as collect
    from cluster.optimization.profile.page import page
    from cluster.optimization.profile.rows import open_with_row

    if live is not None:
        _watch(live, model, html, trace, seconds=seconds)
        _tell_live(live, html, trace, as_json)
        return
    with mendable(), workspace() as folder, RichProgress() as progress:
        writable(html, trace)
        if model is None:
            raise ConfigError("give a model, or --live PID", key="model")
        named = engine_name(engine) if engine else None
        with progress.step("open the model"):
            given, row = open_with_row(
                model,
                store=open_store(store),
                workspace=folder,
                inputs=tuple(inputs or ()),
                outputs=tuple(outputs or ()),
                shapes=parse_shapes(shape),
            )
        with progress.step(f"profile {calls} calls, memory in a process of its own"):
            report = collect(given, row, engine=named, num_calls=calls, threads=threads)
        if html is not None:
            write_whole(html, page(report))
        if trace is not None:
            write_whole(trace, report.trace)
    _tell(report, as_json)


def _watch(
    pid: int, model: str | None, html: Path | None, trace: Path | None, *, seconds: int
) -> None:
    from cluster.errors import ConfigError
    from cluster.optimization.profile.live import record

    with mendable(), RichProgress() as progress:
        writable(html, trace)
        if model is not None:
            raise ConfigError(f"give a model ({model}) or --live PID, not both", key="live")
        if html is None and trace is None:
            raise ConfigError("--live needs --html FILE or --trace FILE", key="html")
        for file in (html, trace):
            if file is not None:
                with progress.step(f"watch process {pid} for {seconds} s"):
                    record(pid, file, seconds=seconds, chrome=file is trace)


def _tell_live(pid: int, html: Path | None, trace: Path | None, as_json: bool) -> None:
    named = {"html": html, "trace": trace}
    files = {name: str(file) for name, file in named.items() if file is not None}
    if as_json:
        print(json.dumps({"pid": pid, **files}))
    else:
        print(f"process {pid}: {', '.join(files.values())}")


def _tell(report: ProfileReport, as_json: bool) -> None:
    from cluster.optimization.profile.report import bottlenecks

    if as_json:
        print(json.dumps(report.as_dict()))
        return
    console = Console(highlight=False)
    table = Table("us", "share", "operator", "name", box=None)
    total = sum(each.us_per_call for each in report.operators) or 1.0
    for each in sorted(report.operators, key=lambda o: -o.us_per_call)[:15]:
        share = f"{each.us_per_call / total:.1%}"
        table.add_row(f"{each.us_per_call:.1f}", share, each.operator, "/".join(each.path))
    console.print(f"{report.model} on {report.engine}: {report.call_us / 1000:.3f} ms a call")
    console.print(table)
    for text in bottlenecks(report):
        console.print(f"- {text}")
