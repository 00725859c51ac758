"""`squadron check`: is a configuration right, without starting anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.cli.held.fitting import hold_against_models
from cluster.config.report import explain_mistakes
from cluster.config.serve_file import place_of, read_serve_file
from cluster.errors import ConfigError


def check(
    file: Annotated[Path, typer.Argument(help="A Serve config file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check a Serve config file: every mistake is named with file, key, value and what is allowed.

    Placements, language models, experiments and ensembles are held against their models where the
    store is a folder of this machine; what a cluster has room for only a cluster says (`squadron
    plan`, `squadron serve`).

    Example: squadron check serve_configs/prod.yaml
    """
    try:
        serve_file, config = read_serve_file(file)
        found = hold_against_models(config)
        if found.mistakes:
            raise explain_mistakes(found.mistakes, place_of(file, serve_file))
    except ConfigError as error:
        if not as_json:
            raise
        # Who reads standard output gets an object in every case; the message itself goes beside it.
        print(json.dumps({"file": str(file), "ok": False, "error": error.message}))
        print(f"squadron: {error.message}", file=sys.stderr)
        raise typer.Exit(2) from None
    names = {
        "variants": sorted(config.variants),
        "experiments": sorted(config.experiments),
        "ensembles": sorted(config.ensembles),
    }
    if as_json:
        placements = {"fitting": found.fitting, "unseen": found.unseen}
        print(json.dumps({"file": str(file), "ok": True, **names, "placements": placements}))
        return
    console = Console(highlight=False)
    console.print(f"{file} is right:", ", ".join(_counted(len(v), k) for k, v in names.items()))
    if found.fitting:
        console.print("placed as their models can be:", ", ".join(found.fitting))
    for name, why in found.unseen.items():
        console.print(f"{name} not held against its model: {why}", soft_wrap=True)


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"
