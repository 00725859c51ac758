"""`squadron jobs`: profiles and searches that a running server's cluster makes of its models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType

from cluster.cli.admin import DEFAULT_URL, AsJson, Url, Watch, ask
from cluster.cli.held.showing import print_value, show, table_of
from cluster.cli.own_door import key_headers
from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import mendable, writable
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.client import Client

app = typer.Typer(
    no_args_is_help=True,
    help="What a running server's cluster works on beside serving: profiles and searches.",
)
ID = Annotated[str, typer.Argument(help="The job, as `squadron jobs list` shows it.")]
MODEL = Annotated[str, typer.Argument(help="A variant that the server serves.")]
TOP = 15
ON_STOP = "its job is ended too: `squadron jobs list` shows it"


@app.command("list")
def list_jobs(url: Url = DEFAULT_URL, as_json: AsJson = False, watch: Watch = False) -> None:
    """Every job that the server remembers, oldest first.

    Example: squadron jobs list --watch
    """

    def drawn(value: Any) -> RenderableType:
        table = table_of("id", "kind", "model", "asked", "state", "does", "reason")
        for job in value:
            asked = datetime.fromtimestamp(job["created_s"]).strftime("%H:%M:%S")
            does = job["steps"][-1] if job["steps"] and job["state"] == "running" else ""
            row = (job["id"], job["kind"], job["model"], asked, job["state"], does, job["reason"])
            table.add_row(*row)
        return table

    show(lambda: ask(url, "GET", "jobs"), drawn, as_json=as_json, watch=watch)


@app.command("show")
def show_job(
    job_id: ID, url: Url = DEFAULT_URL, as_json: AsJson = False, watch: Watch = False
) -> None:
    """One job: its steps, why it ended; with --json its result as well.

    Example: squadron jobs show 0123456789abcdef --json
    """
    path = f"jobs/{quote(job_id, safe='')}"
    show(lambda: ask(url, "GET", path), _job, as_json=as_json, watch=watch)


@app.command("cancel")
def cancel_job(job_id: ID, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """End a job; nothing half-made stays.

    Example: squadron jobs cancel 0123456789abcdef
    """
    found = ask(url, "DELETE", f"jobs/{quote(job_id, safe='')}")
    print_value(found, _job, as_json=as_json)


@app.command("profile")
def profile(
    model: MODEL,
    url: Url = DEFAULT_URL,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace here.")] = None,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Calls to average over.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Time of every operator of a served model on a random row, measured on its cluster beside its
    serving. Ctrl-C ends the job.

    Example: squadron jobs profile text-embedder --html profile.html
    """
    from cluster.client.remote.jobs import run_job, server_of
    from cluster.client.remote.told import profile_report
    from cluster.optimization.profile.page import page
    from cluster.optimization.profile.report import bottlenecks

    with mendable(ON_STOP), _client(url) as client, RichProgress() as progress:
        writable(html, trace)
        server = server_of(client.load_model(model).backend, "a profile")
        content = {"kind": "profile", "model": model, "num_calls": calls}
        _, result = run_job(server, content, progress=progress)
        report = profile_report(result["report"], result["trace"])
        if html is not None:
            html.write_text(page(report), encoding="utf-8")
        if trace is not None and not report.trace:
            raise ConfigError(
                f"no trace was written to {trace}: that of {calls} calls is too large to be sent; "
                "ask for fewer --calls",
                key="calls",
            )
        if trace is not None:
            trace.write_text(report.trace, encoding="utf-8")
    if as_json:
        print(json.dumps(report.as_dict()))
        return
    table = table_of("us", "share", "operator", "name")
    total = sum(each.us_per_call for each in report.operators) or 1.0
    for each in report.operators[:TOP]:
        share = f"{each.us_per_call / total:.1%}"
        table.add_row(f"{each.us_per_call:.1f}", share, each.operator, "/".join(each.path))
    print_value(table, lambda value: value, as_json=False)
    for text in bottlenecks(report):
        print(f"- {text}")


@app.command("optimize")
def optimize(
    model: MODEL,
    url: Url = DEFAULT_URL,
    level: Annotated[str, typer.Option(help="basic, balanced or max.")] = "balanced",
    target: Annotated[str, typer.Option(help="latency, throughput or size.")] = "latency",
    device: Annotated[str, typer.Option(help="cpu, cuda or multi_gpu.")] = "cpu",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of .npz files: arrays by input name, `labels` if known."),
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Put the chosen variant into the server's store so.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds in which variants take turns.")] = 10,
    timeout_s: Annotated[
        float, typer.Option(help="End the search after this; what was built is found again.")
    ] = 1800,
    as_json: AsJson = False,
) -> None:
    """Search for a faster variant of a served model on its cluster's hardware, beside its serving.
    Ctrl-C ends the job; what was built is found in the cache the next time.

    Example: squadron jobs optimize text-embedder --level basic --add text-embedder-fast
    """
    from cluster.cli.toolchain.optimize import show as show_report
    from cluster.optimization.search.page import page

    with mendable(ON_STOP), _client(url) as client:
        writable(html)
        with RichProgress() as progress:
            made = client.optimize(
                client.load_model(model),
                level=level,
                target=target,
                target_device=device,
                data=data,
                num_rounds=rounds,
                timeout_s=timeout_s,
                progress=progress,
            )
        report = made.report
        assert report is not None, "optimize gives one"
        if html is not None:
            html.write_text(page(report), encoding="utf-8")
        card = None if add is None else client.add_to_store(made, add)
    if as_json:
        added = None if card is None else {"name": card.name, "version": card.version}
        print(json.dumps({**report.as_dict(), "added": added}))
        return
    show_report(report, html)
    if card is not None:
        print(f"added: {card.name}/{card.version}; `source: {card.name}` in the YAML serves it")


@contextmanager
def _client(url: str) -> Iterator[Client]:
    from cluster.client import Client

    with Client(url, headers=key_headers(), timeout_s=60) as client:
        yield client


def _job(job: Any) -> RenderableType:
    table = table_of("", "")
    for key in ("id", "kind", "model", "state", "reason"):
        table.add_row(key, str(job[key]))
    if job["started_s"] is not None and job["ended_s"] is not None:
        table.add_row("took", f"{job['ended_s'] - job['started_s']:.1f} s")
    for number, step in enumerate(job["steps"], 1):
        table.add_row(f"step {number}", step)
    return table
