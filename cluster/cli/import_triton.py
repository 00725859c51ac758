"""`squadron models import`: a Triton model repository into the store and a Serve config file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cluster.config.store import ModelStore, default_root
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.optimization.triton.convert import ImportReport


def import_(
    repository: Annotated[Path, typer.Argument(help="The folder Triton was started with.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The Serve file to write \\[default: serve_configs/NAME.yaml]."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when anything cannot be carried over.")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="The store \\[default: $SQUADRON_MODEL_STORE, else ./models]."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Take over a Triton model repository: models into the store, settings into a Serve file.

    What has no counterpart is told model by model and field by field. Nothing of the repository is
    changed or run.

    Examples:

      squadron models import ./model_repository --out serve_configs/mine.yaml

      squadron models import ./model_repository --strict --json
    """
    from cluster.optimization.triton.convert import import_repository, write_serve_file

    file = out or Path("serve_configs") / f"{repository.resolve().name}.yaml"
    try:
        if file.exists():
            raise ConfigError(f"{file} exists already; it was left as it is: choose another --out")
        report = import_repository(repository, ModelStore(store or default_root()))
    except ConfigError as error:
        print(f"squadron: {error.message}", file=sys.stderr)
        raise typer.Exit(2) from None
    lost = report.lost() if strict else ()
    if not lost:
        write_serve_file(report, repository, file)
    if as_json:
        print(json.dumps(_content(report, None if lost else file)))
    else:
        _print(report, None if lost else file)
    if lost:
        print(f"squadron: --strict: {len(lost)} settings would be lost", file=sys.stderr)
        raise typer.Exit(2)


def _content(report: ImportReport, file: Path | None) -> dict[str, object]:
    return {
        "file": None if file is None else str(file),
        "variants": list(report.variants),
        "ensembles": list(report.ensembles),
        "stored": [
            {
                "name": each.name,
                "version": each.version,
                "folder": str(each.folder),
                "new": each.is_new,
            }
            for each in report.stored
        ],
        "findings": [asdict(finding) for finding in report.findings],
    }


def _print(report: ImportReport, file: Path | None) -> None:
    console = Console(highlight=False)
    for finding in report.findings:
        console.print(
            f"{finding.outcome:8} {finding.model}: {finding.field}: {finding.reason}",
            soft_wrap=True,
            markup=False,
        )
    num_new = sum(each.is_new for each in report.stored)
    console.print(
        f"{len(report.variants)} variants, {len(report.ensembles)} ensembles; {num_new} model "
        f"versions are new in the store",
        soft_wrap=True,
    )
    if file is not None:
        console.print(f"serve it with: squadron serve {file}", soft_wrap=True)
