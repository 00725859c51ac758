"""`squadron ensemble`: what an ensemble needs before it can be served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.config.serve_file import read_serve_file
from cluster.config.store import ModelStore, default_root
from cluster.errors import ConfigError
from cluster.optimization.stacking.add import add_stacking
from cluster.optimization.stacking.labelled import read_labelled

app = typer.Typer(no_args_is_help=True, help="Fit the models that combine an ensemble's members.")


@app.callback()
def group() -> None:
    """Fit the models that combine an ensemble's members."""


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(help="A Serve config file.")],
    ensemble: Annotated[str, typer.Argument(help="An ensemble with a step `combine: stacking`.")],
    data: Annotated[
        Path, typer.Option(help="Labelled rows: .csv or .npz, a column an input, and `label`.")
    ],
    store: Annotated[
        Path | None,
        typer.Option(help="The store's folder \\[default: $SQUADRON_MODEL_STORE, else ./models]."),
    ] = None,
    inverse_l2: Annotated[
        float, typer.Option("--inverse-l2", min=1e-6, help="C: more trusts the data more.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Fit a stacking step on labelled data and put its model into the store.

    Members are computed here, without a server; the new version is served from the next start.

    Example: squadron ensemble fit serve_configs/mine.yaml reviews --data reviews.csv
    """
    _, config = read_serve_file(file)
    if ensemble not in config.ensembles:
        known = ", ".join(config.ensembles) or "none"
        raise ConfigError(
            f"{file}: no ensemble {ensemble!r}; there: {known}",
            file=str(file),
            key=f"ensembles.{ensemble}",
            allowed=known,
        )
    console = Console(highlight=False, stderr=True)
    rows = read_labelled(data, config.ensembles[ensemble].inputs)
    models = ModelStore(store if store is not None else default_root())
    found = add_stacking(
        ensemble,
        config,
        models,
        rows,
        inverse_l2=inverse_l2,
        tell=lambda text: None if as_json else console.print(text),
    )
    if as_json:
        told = {"model": found.card.name, "version": found.card.version, "rows": found.num_rows}
        print(json.dumps({**told, "accuracy": found.accuracy, "alone": found.alone}))
        return
    console.print(f"{found.card.name} version {found.card.version} is in {models.root}")
    console.print(f"right out of fold: {found.accuracy:.1%} of {found.num_rows} rows")
    for value, accuracy in found.alone.items():
        console.print(f"  {value} alone: {accuracy:.1%}")
