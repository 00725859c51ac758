"""Labelled data for fitting: a row of an ensemble's inputs, and what it is."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.errors import ConfigError
from cluster.tensors import Array, bytes_array

LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """`inputs`: the ensemble's inputs, all rows; `labels`: a text a row."""

    inputs: dict[str, Array]
    labels: tuple[str, ...]


def read_labelled(path: Path, names: Sequence[str]) -> Labelled:
    """A `.csv` with a column for each input and `label` (texts; `@file` is that
    file's bytes, beside the CSV), or an `.npz` with an array for each input and `label`.

    Raises: ConfigError for a file that cannot be read or lacks a column.
    """
    if path.suffix not in (".csv", ".npz"):
        raise ConfigError(f"{path}: not labelled data", file=str(path), allowed=".csv, .npz")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                columns = {name: arrays[name] for name in arrays.files}
        else:
            columns = _columns(path)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", file=str(path)) from None
    for name in (*names, LABEL):
        if name not in columns:
            raise ConfigError(
                f"{path}: no column {name!r}; there: {', '.join(columns)}",
                file=str(path),
                key=name,
                allowed=", ".join((*names, LABEL)),
            )
    labels = tuple(str(label) for label in columns[LABEL].tolist())
    for name in names:
        if len(columns[name]) != len(labels):
            raise ConfigError(
                f"{path}: {len(columns[name])} rows of {name!r} and {len(labels)} labels",
                file=str(path),
                key=name,
            )
    return Labelled(inputs={name: columns[name] for name in names}, labels=labels)


def _columns(path: Path) -> dict[str, Array]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    found: dict[str, Array] = {}
    for name in reader.fieldnames or ():
        texts = [row[name] or "" for row in rows]
        if name == LABEL:
            found[name] = np.array(texts, dtype=np.object_)
        else:
            found[name] = bytes_array([_bytes(text, path.parent) for text in texts], (len(rows),))
    return found


def _bytes(text: str, folder: Path) -> bytes:
    return (folder / text[1:]).read_bytes() if text.startswith("@") else text.encode()
