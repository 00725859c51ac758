"""`squadron check`: is a configuration right, without starting anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.config.serve_file import read_serve_file
from cluster.errors import ConfigError


def check(
    file: Annotated[Path, typer.Argument(help="A Serve config file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check a Serve config file: every mistake is named with file, key, value and what is allowed.

    Example: squadron check serve_configs/prod.yaml
    """
    try:
        _, config = read_serve_file(file)
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
        print(json.dumps({"file": str(file), "ok": True, **names}))
        return
    console = Console(highlight=False)
    console.print(f"{file} is right:", ", ".join(_counted(len(v), k) for k, v in names.items()))


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"
