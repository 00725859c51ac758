"""Two variants of a model, judged against each other on the caller's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.models import EngineName
from cluster.optimization.gate.gate import GateLimits, Verdict, judge
from cluster.optimization.intake.data import Dataset, load_dataset, random_dataset
from cluster.optimization.intake.model import GivenModel, open_model
from cluster.optimization.measure.variant import Variant, answers, opened, ranks_classes


def validate(
    original: str | Path,
    optimised: str | Path,
    *,
    store: ModelStore,
    workspace: Path,
    data: Path | None = None,
    limits: GateLimits | None = None,
    max_items: int = 2000,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    engine: EngineName | None = None,
    threads: int = 1,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> tuple[Verdict, Dataset]:
    """The verdict and the items it was reached on; random inputs when there is no `data`.

    Raises: ConfigError when the two do not take the same inputs and give the same outputs, or the
    data does not fit them.
    """
    before, after = (
        open_model(given, store=store, workspace=workspace / place, inputs=inputs, outputs=outputs)
        for place, given in (("original", original), ("optimised", optimised))
    )
    check_same_interface(before, after)
    dataset = (
        random_dataset(before.card, before.onnx, shapes=shapes)
        if data is None
        else load_dataset(data, before.card, before.folder, max_items)
    )
    first = Variant(card=before.card, folder=before.folder)
    second = Variant(card=after.card, folder=after.folder, engine=engine)
    with opened(first, threads=threads) as run:
        expected = answers(run, dataset.items, before.card)
    with opened(second, threads=threads) as run:
        found = answers(run, dataset.items, before.card)
    verdict = judge(
        expected,
        found,
        labels=dataset.labels,
        ranks_classes=ranks_classes(before.card),
        is_real_data=dataset.is_real,
        limits=limits or GateLimits(),
    )
    return verdict, dataset


def check_same_interface(before: GivenModel, after: GivenModel) -> None:
    """Raises: ConfigError naming what differs."""
    for what in ("inputs", "outputs"):
        first = {spec.name: spec for spec in getattr(before.card.raw_signature(), what)}
        second = {spec.name: spec for spec in getattr(after.card.raw_signature(), what)}
        if set(first) != set(second):
            raise ConfigError(
                f"{before.name} has {what} {', '.join(first)}; {after.name} has "
                f"{', '.join(second)}: they cannot stand in for each other",
                key=what,
            )
        for name, spec in first.items():
            if spec.datatype != second[name].datatype:
                raise ConfigError(
                    f"{name!r} is {spec.datatype} in {before.name} and {second[name].datatype} in "
                    f"{after.name}: they cannot stand in for each other",
                    key=name,
                )
