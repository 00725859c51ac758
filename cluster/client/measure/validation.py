"""Whether one model may stand in for another, wherever the two run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.client.inputs import as_array, num_rows
from cluster.client.measure.samples import sample_row
from cluster.errors import ConfigError
from cluster.optimization.gate.gate import GateLimits, Verdict, judge
from cluster.optimization.intake.data import IMAGES
from cluster.tensors import Array, Signature

if TYPE_CHECKING:
    from cluster.client.model import Model

LABELS = "labels"
PROBABILITIES = "probabilities"
NUM_RANDOM = 8


def validate_accuracy(
    a: Model,
    b: Model,
    data: Any = None,
    *,
    labels: Sequence[int] | None = None,
    limits: GateLimits | None = None,
    max_items: int = 2000,
) -> Verdict:
    """May `b` stand in for `a`? On labelled items their accuracies are compared item by item, else
    their answers.

    `data`: a list of inputs as `predict` takes them, one row each; a mapping of arrays whose first
    axis counts the items (`labels` among them if known); or a folder of .npz files, pictures
    (with labels.csv) or .txt files. Without data a few random inputs are used, which find a broken
    model and validate nothing (`is_validated` says so).
    Raises: ConfigError when the two do not answer the same outputs, or the data does not fit them.
    """
    outputs, ranks_classes = _compared(a, b)
    is_real = data is not None
    items: list[dict[str, Array]]
    if data is None:
        items = [sample_row(a.backend) for _ in range(NUM_RANDOM)]
    else:
        items, found_labels = items_of(data, a.signature, max_items)
        labels = labels if labels is not None else found_labels
    if not items:
        raise ConfigError("the data holds no item", key="data")
    if labels is not None and len(labels) < len(items):
        raise ConfigError(
            f"{len(items)} items and {len(labels)} labels: give one each", key="labels"
        )
    return judge(
        [a.predict(item, outputs=outputs) for item in items],
        [b.predict(item, outputs=outputs) for item in items],
        labels=list(labels[: len(items)]) if labels is not None else None,
        ranks_classes=ranks_classes,
        is_real_data=is_real,
        limits=limits or GateLimits(),
    )


def _compared(a: Model, b: Model) -> tuple[tuple[str, ...], bool]:
    """The outputs to compare, and whether the first ranks classes.

    A classifier's names and scores of its best classes are no numbers to compare: its probabilities
    are asked for, which it gives when they are named.
    """
    first, second = _numeric(a.signature), _numeric(b.signature)
    if _is_classifier(a.signature) and _is_classifier(b.signature):
        return (PROBABILITIES,), True
    if not first or set(first) != set(second):
        raise ConfigError(
            f"{a.name} gives {', '.join(first) or 'no numbers'}; {b.name} gives "
            f"{', '.join(second) or 'no numbers'}: they cannot stand in for each other",
            key="outputs",
        )
    spec = a.signature.output(first[0])
    assert spec is not None, "its own output"
    ranks = len(spec.shape) == 2 and spec.shape[-1] >= 2 and spec.name != "embedding"
    return first, ranks


def _is_classifier(signature: Signature) -> bool:
    labels, scores = signature.output("labels"), signature.output("scores")
    return labels is not None and labels.datatype == "BYTES" and scores is not None


def _numeric(signature: Signature) -> tuple[str, ...]:
    return tuple(spec.name for spec in signature.outputs if spec.datatype != "BYTES")


def items_of(
    data: Any, signature: Signature, max_items: int
) -> tuple[list[dict[str, Array]], list[int] | None]:
    """Rows as the model's callers give them, and their labels where all are known.

    Raises: ConfigError naming what does not fit.
    """
    if isinstance(data, str | Path):
        return _of_folder(Path(data), signature, max_items)
    if isinstance(data, Mapping):
        return _columns(data, signature, max_items, "data")
    single = signature.inputs[0].name if len(signature.inputs) == 1 else ""
    items: list[dict[str, Array]] = []
    for item in list(data)[:max_items]:
        if not isinstance(item, Mapping):
            if not single:
                raise ConfigError("name the inputs of each item: the model has several", key="data")
            item = {single: item}
        arrays = {name: as_array(x, signature.input(name)) for name, x in item.items()}
        if num_rows(arrays, is_batched=True) != 1:
            raise ConfigError("each item of the data is one row (first axis 1)", key="data")
        items.append(arrays)
    return items, None


def _columns(
    columns: Mapping[str, Any], signature: Signature, max_items: int, what: str
) -> tuple[list[dict[str, Array]], list[int] | None]:
    for spec in signature.inputs:
        if spec.name not in columns:
            raise ConfigError(
                f"{what}: no array {spec.name!r} for the model's input; there: "
                f"{', '.join(columns)}",
                key=spec.name,
            )
    arrays = {s.name: as_array(columns[s.name], s) for s in signature.inputs}
    count = min(max_items, *(len(array) for array in arrays.values()))
    items = [{n: a[index : index + 1] for n, a in arrays.items()} for index in range(count)]
    labels = columns.get(LABELS)
    return items, None if labels is None else [int(label) for label in labels[:count]]


def _of_folder(
    folder: Path, signature: Signature, max_items: int
) -> tuple[list[dict[str, Array]], list[int] | None]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder", file=str(folder), key="data")
    arrays = sorted(folder.glob("*.npz"))
    single = signature.inputs[0]
    if arrays:
        with arrays[0].open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        return _columns(columns, signature, max_items, str(arrays[0]))
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if pictures and single.name == "image":
        given = [as_array(path.read_bytes(), single) for path in pictures[:max_items]]
        known = _labels_file(folder)
        labels = [known.get(str(path.relative_to(folder))) for path in pictures[:max_items]]
        whole = [label for label in labels if label is not None]
        return [{"image": x} for x in given], whole if len(whole) == len(given) else None
    lines = [
        line for path in sorted(folder.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]  # fmt: skip
    if lines and single.datatype == "BYTES":
        return [{single.name: as_array(line, single)} for line in lines[:max_items]], None
    raise ConfigError(
        f"{folder}: holds nothing that the model takes ({single.name}, {single.datatype}); give "
        ".npz files by input name, pictures for `image` or .txt files for a text",
        file=str(folder),
        key="data",
    )


def _labels_file(folder: Path) -> dict[str, int]:
    file = folder / "labels.csv"
    if not file.is_file():
        return {}
    found: dict[str, int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, label = line.rpartition(",")
        if not label.strip().isdecimal():
            raise ConfigError(f"{file}: {line!r}; write file,class", file=str(file), key="labels")
        found[name.strip()] = int(label)
    return found
