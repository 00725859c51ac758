"""`squadron`: every command group under one name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from cluster.errors import ConfigError

_OF: dict[str, tuple[str, str]] = {
    "status": ("cluster.cli.admin", "status"),
    "explain": ("cluster.cli.admin", "explain"),
    "serve": ("cluster.cli.serve", "serve"),
    "check": ("cluster.cli.check", "check"),
    "config": ("cluster.cli.config", "config"),
    "plan": ("cluster.cli.plan.command", "plan"),
    "optimize": ("cluster.cli.toolchain.optimize", "optimize"),
    "validate": ("cluster.cli.toolchain.validate", "validate"),
    "profile": ("cluster.cli.toolchain.profile", "profile"),
    "distil": ("cluster.cli.toolchain.distil", "distil"),
    "convert": ("cluster.cli.toolchain.convert", "convert"),
    "inspect": ("cluster.cli.toolchain.inspect", "inspect"),
    "benchmark": ("cluster.cli.toolchain.benchmark", "benchmark"),
    "models": ("cluster.cli.models", "app"),
    "k8s": ("cluster.cli.kubernetes", "app"),
    "keys": ("cluster.cli.keys", "app"),
    "jobs": ("cluster.cli.jobs.command", "app"),
    "traffic": ("cluster.cli.admin", "traffic_app"),
    "experiment": ("cluster.cli.admin", "experiment_app"),
    "experiments": ("cluster.cli.admin", "experiment_app"),
    "ensemble": ("cluster.cli.ensemble", "app"),
}
"""Module and name of what each word stands for, in the order of the help."""

_HIDDEN = frozenset({"experiments"})


class Commands(TyperGroup):
    """Imports what is asked for: all of them together take a second, most of it what one command
    alone needs (the planner's numpy, the checker's schemas)."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_OF)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _OF:
            for name in _OF:  # for "Did you mean": among what is here
                self.get_command(ctx, name)
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _made(cmd_name)
        return self.commands[cmd_name]


def _made(name: str) -> Any:
    """A command or a group of them, as typer makes it below another one."""
    module, attribute = _OF[name]
    of: typer.Typer | Callable[..., None] = getattr(import_module(module), attribute)
    above = typer.Typer(add_completion=False)
    above.callback()(_nothing)
    if isinstance(of, typer.Typer):
        above.add_typer(of, name=name, hidden=name in _HIDDEN)
    else:
        above.command(name=name)(of)
    return get_group(above).commands[name]


def _nothing() -> None:
    """Makes a group of what holds one command."""


app = typer.Typer(
    name="squadron",
    cls=Commands,
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


def run() -> None:
    """The console script: errors an operator can mend are one message and exit code 2."""
    try:
        app()
    except ConfigError as error:
        print(f"squadron: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None
