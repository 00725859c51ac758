"""The toolchain's commands, by name."""

from __future__ import annotations

import typer

from cluster.cli.toolchain import benchmark, convert, distil, inspect, optimize, profile, validate


def add_to(app: typer.Typer) -> None:
    app.command(name="optimize")(optimize.optimize)
    app.command(name="validate")(validate.validate)
    app.command(name="profile")(profile.profile)
    app.command(name="distil")(distil.distil)
    app.command(name="convert")(convert.convert)
    app.command(name="inspect")(inspect.inspect)
    app.command(name="benchmark")(benchmark.benchmark)
