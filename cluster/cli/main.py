"""`squadron`: every command group under one name."""

from __future__ import annotations

import sys
from importlib import metadata

import typer

from cluster.cli import admin, check, config, ensemble, keys, kubernetes, models, serve
from cluster.cli.jobs import command as jobs
from cluster.cli.plan import command as planning
from cluster.cli.toolchain import commands as toolchain
from cluster.errors import ConfigError

app = typer.Typer(
    name="squadron",
    no_args_is_help=True,
    add_completion=False,
    help="""Serve trained models over HTTP and gRPC on a Ray cluster.

    Examples:

      squadron serve serve_configs/prod.yaml      start everything and say what is ready

      squadron serve my_model.onnx                serve one model, no YAML

      squadron models fetch                       download and prepare the example models

      squadron check serve_configs/prod.yaml      is this file right?

      squadron config batching                    which keys are there?

      squadron status --watch                     what runs, and how the traffic splits

      squadron plan --topology serve_configs/topologies/eight_gpus.yaml   where should models go?
    """,
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        print(f"squadron {metadata.version('squadron-serve')}")
        raise typer.Exit


@app.callback()
def _before_all(
    version: bool = typer.Option(
        False, "--version", callback=_say_version, is_eager=True, help="Say which one this is."
    ),
) -> None:
    """Options of `squadron` itself."""


app.add_typer(models.app, name="models")
app.add_typer(kubernetes.app, name="k8s")
app.add_typer(keys.app, name="keys")
app.add_typer(jobs.app, name="jobs")
app.add_typer(admin.traffic_app, name="traffic")
app.add_typer(admin.experiment_app, name="experiment")
app.add_typer(admin.experiment_app, name="experiments", hidden=True)
app.command(name="status")(admin.status)
app.command(name="explain")(admin.explain)
app.add_typer(ensemble.app, name="ensemble")
app.command(name="serve")(serve.serve)
app.command(name="check")(check.check)
app.command(name="config")(config.config)
app.command(name="plan")(planning.plan)
toolchain.add_to(app)


def run() -> None:
    """The console script: errors an operator can mend are one message and exit code 2."""
    try:
        app()
    except ConfigError as error:
        print(f"squadron: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None
