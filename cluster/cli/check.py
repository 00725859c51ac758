"""`squadron check`: is a configuration right, without starting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.config.serve_file import read_serve_file


def check(
    file: Annotated[Path, typer.Argument(help="A Serve config file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check a Serve config file: every mistake is named with file, key, value and what is allowed.

    Example: squadron check serve_configs/prod.yaml
    """
    _, config = read_serve_file(file)
    names = {
        "variants": sorted(config.variants),
        "experiments": sorted(config.experiments),
        "ensembles": sorted(config.ensembles),
    }
    if as_json:
        print(json.dumps({"file": str(file), "ok": True, **names}))
        return
    console = Console(highlight=False)
    console.print(f"{file} is right:", *(f"{len(v)} {k}" for k, v in names.items()))
