"""`squadron plan`: where models go on a cluster, and why, without starting anything."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from cluster.cli.plan.machine import as_json, shortage_as_json
from cluster.cli.plan.picture import show
from cluster.cli.plan.running import RUNNING, running_topology
from cluster.cli.plan.svg import svg
from cluster.config.planning.topology import TopologyFile
from cluster.config.serve_file import read_serve_file
from cluster.config.yaml_file import read_section
from cluster.errors import ConfigError
from cluster.optimization.facts.variant import facts_of, measured
from cluster.optimization.remote.mirror import open_store
from cluster.placement.estimates.described import demand_of, described, fixed_of, no_facts
from cluster.placement.search.facts import Demand
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.plan import Shortage
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace

QUIET_S = 2.0
"""A search that is done sooner shows no bar."""


def plan(
    topology: Annotated[
        Path,
        typer.Option(
            help="Nodes, devices, links, and what models are asked for; `ray` measures those of "
            "the running Ray cluster."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="A Serve config file: its variants are planned.")
    ] = None,
    as_machine: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    picture: Annotated[Path | None, typer.Option("--svg", help="Write a picture here.")] = None,
    calls: Annotated[int, typer.Option(min=100, help="Calls of the simulated trace.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Of the trace.")] = 0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each variant on this machine's CPU first.")
    ] = False,
    address: Annotated[str, typer.Option(help="Of the Ray cluster (--topology ray).")] = "auto",
) -> None:
    """Plan placements: which devices share a model or a copy of it, what each holds, and why.

    A placement that the configuration fixes is kept as it is where there are devices of its own for
    it, and the plan says so where not; `auto`, or none, leaves the shape to the plan.

    Attainments are simulated. Exit code 2 says that not every model has a place, and what is short.

    Example: squadron plan --topology serve_configs/topologies/eight_gpus.yaml

    Example: squadron plan --topology ray --config serve_configs/sharded.yaml
    """
    is_running = str(topology) == RUNNING
    told = running_topology(address) if is_running else read_section(topology, TopologyFile)
    demands = _demands(told, config, topology, measure=measure)
    ground = told.to_topology()
    rate = sum(demand.rate_per_s for demand in demands)
    trace = draw_trace(
        demands, seconds=calls / rate if rate else 1.0, random=np.random.default_rng(seed)
    )
    with _Bar() as bar:
        found = find_plan(
            ground,
            demands,
            FastSimulator(trace, request_s=ground.request_s),
            progress=bar.tell,
        )
    if isinstance(found, Shortage):
        if as_machine:
            print(json.dumps(shortage_as_json(found)))
        print(f"squadron: {found.message}", file=sys.stderr)
        raise typer.Exit(2)
    if picture is not None:
        picture.write_text(svg(found), encoding="utf-8")
    if as_machine:
        print(json.dumps(as_json(found)))
        return
    console = Console(highlight=False)
    show(found, console)
    if picture is not None:
        console.print(f"picture: {picture}")


def _demands(
    told: TopologyFile, config: Path | None, topology: Path, *, measure: bool
) -> tuple[Demand, ...]:
    if config is None:
        if not told.models:
            raise ConfigError(
                f"{topology}: models: there is nothing to place; allowed: models here, or a "
                "configuration with --config",
                file=str(topology),
                key="models",
            )
        found: list[Demand] = []
        for name, planned in told.models.items():
            facts = described(name, planned)
            if facts is None:
                raise no_facts(name, "without --config there is no artefact to look at")
            found.append(demand_of(name, planned, facts))
        return tuple(found)
    _, ours = read_serve_file(config)
    unknown = sorted(set(told.models) - set(ours.variants))
    if unknown:
        allowed = ", ".join(ours.variants)
        raise ConfigError(
            f"{topology}: models.{unknown[0]}: {config} has no such variant; allowed: {allowed}",
            file=str(topology),
            key=f"models.{unknown[0]}",
            value=unknown[0],
            allowed=allowed,
        )
    store = open_store(ours.store.path, ours.store.cache)
    demands: list[Demand] = []
    for name, variant in ours.variants.items():
        planned = told.models.get(name, variant.placement.demand)
        planned, facts = facts_of(name, variant, planned, store)
        if measure and variant.source is not None and not planned.measured_ms:
            facts = measured(facts, name, variant, store)
        demands.append(replace(demand_of(name, planned, facts), fixed=fixed_of(variant)))
    return tuple(demands)


class _Bar:
    """Shown on stderr once the search has taken a while."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._bars = Progress(console=Console(stderr=True))
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        if self._task is None:
            if time.monotonic() - self._began_s < QUIET_S:
                return
            self._bars.start()
            self._task = self._bars.add_task("planning")
        self._bars.update(self._task, description=what, completed=done, total=total)
