"""The items that an optimised model is judged on, and those it is calibrated with."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.config.model_card import ImagePreprocess, ModelCard, TextPreprocess
from cluster.errors import ConfigError, SquadronError
from cluster.optimization.intake.random_inputs import random_items
from cluster.processing.pipeline import Pipeline
from cluster.processing.signature_check import disagreement
from cluster.tensors import Array, bytes_array

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LABELS_FILE = "labels.csv"
LABELS_KEY = "labels"
NUM_RANDOM = 32
CALIBRATION_STEP = 4
MAX_CALIBRATION = 128
WHAT_DATA_IS = (
    "a folder of .npz files (arrays by input name, first axis the items; `labels` if known), of "
    f"pictures (with {LABELS_FILE}: file,class) or of .txt files (a text a line)"
)

Item = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Items of one row each, as the artefact takes them; `labels` beside them when all are known.

    `is_real` is false for random inputs. `origin` says in words where the items come from.
    """

    origin: str
    is_real: bool
    items: tuple[Item, ...]
    labels: tuple[int, ...] | None = None

    def head(self, num: int) -> Dataset:
        labels = None if self.labels is None else self.labels[:num]
        return Dataset(
            origin=self.origin, is_real=self.is_real, items=self.items[:num], labels=labels
        )

    def split(self) -> tuple[Dataset, Dataset]:
        """(calibration, evaluation): every fourth item calibrates, and is judged on by nobody.

        Random inputs, and fewer than four items, are used for both, as there is nothing to learn
        by heart or too little to divide.
        """
        if not self.is_real or len(self.items) < CALIBRATION_STEP:
            return self.head(MAX_CALIBRATION), self
        chosen = [i for i in range(len(self.items)) if i % CALIBRATION_STEP == 0]
        rest = [i for i in range(len(self.items)) if i % CALIBRATION_STEP]
        return self._take(chosen[:MAX_CALIBRATION]), self._take(rest)

    def taught(self) -> Dataset:
        """What a student may learn from: those that calibrate, however many. None when the items
        are too few to divide."""
        if len(self.items) < CALIBRATION_STEP:
            return self._take([])
        return self._take(list(range(0, len(self.items), CALIBRATION_STEP)))

    def _take(self, indices: list[int]) -> Dataset:
        return Dataset(
            origin=self.origin,
            is_real=self.is_real,
            items=tuple(self.items[index] for index in indices),
            labels=None if self.labels is None else tuple(self.labels[i] for i in indices),
        )


def fitted(data: Dataset, card: ModelCard) -> Dataset:
    """The items with the arrays that the model takes, and no others.

    Raises: ConfigError naming the item and what does not fit.
    """
    specs = card.raw_signature().inputs
    items: list[Item] = []
    for number, item in enumerate(data.items):
        for spec in specs:
            if spec.name not in item:
                there = ", ".join(item) or "nothing"
                raise ConfigError(
                    f"data: nothing for the model's input {spec.name!r}; there: {there}",
                    key=spec.name,
                )
            wrong = disagreement(item[spec.name], spec, is_batched=card.batched)
            if wrong:
                raise ConfigError(
                    f"data: item {number}: input {spec.name!r}: {wrong}", key=spec.name
                )
        items.append({spec.name: item[spec.name] for spec in specs})
    return replace(data, items=tuple(items))


def class_numbers(labels: Array, where: str) -> tuple[int, ...]:
    """Labels as the numbers of classes. Raises: ConfigError for texts, fractions and one-hot rows,
    named after `where` they were found."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.number) or (labels % 1).any():
        raise ConfigError(
            f"{where}: {LABELS_KEY!r} is {labels.dtype} {list(labels.shape)}; give the number of "
            "one class for each item, from 0 on (of one-hot rows: labels.argmax(1))",
            key=LABELS_KEY,
        )
    return tuple(int(label) for label in labels)


def random_dataset(
    card: ModelCard,
    graph: Path | None,
    *,
    num: int = NUM_RANDOM,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Dataset:
    """Random inputs of the right shapes. Raises: as `random_items`."""
    items = random_items(card, num, shapes=shapes, graph=graph)
    return Dataset(origin=f"{num} random inputs", is_real=False, items=items)


def load_dataset(folder: Path, card: ModelCard, model_folder: Path, limit: int = 2000) -> Dataset:
    """The first `limit` items of a data folder, prepared as serving prepares them.

    Raises: ConfigError naming the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; data is {WHAT_DATA_IS}", file=str(folder))
    arrays = sorted(folder.glob("*.npz"))
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    texts = sorted(folder.glob("*.txt"))
    pipeline = Pipeline(card, model_folder)
    if arrays:
        found = list(_from_arrays(arrays, card, limit))
    elif pictures and isinstance(card.preprocess, ImagePreprocess):
        found = list(_from_pictures(pictures[:limit], folder, pipeline))
    elif texts and isinstance(card.preprocess, TextPreprocess):
        found = list(_from_texts(texts, pipeline, limit))
    elif pictures or texts:
        raise ConfigError(
            f"{folder}: holds {'pictures' if pictures else 'texts'}, and nothing says how this "
            "model wants them prepared (its card has no such preprocess); give .npz files instead",
            file=str(folder),
            key="data",
        )
    else:
        raise ConfigError(f"{folder}: no data in it; data is {WHAT_DATA_IS}", file=str(folder))
    if not found:
        raise ConfigError(f"{folder}: its files hold no item", file=str(folder))
    labels = [label for _, label in found if label is not None]
    return Dataset(
        origin=f"{len(found)} items of {folder}",
        is_real=True,
        items=tuple(item for item, _ in found),
        labels=tuple(labels) if len(labels) == len(found) else None,
    )


def _from_arrays(
    files: list[Path], card: ModelCard, limit: int
) -> Iterator[tuple[Item, int | None]]:
    specs = card.raw_signature().inputs
    given = 0
    for file in files:
        archive = _read_npz(file)
        columns = {spec.name: _column(file, spec.name, archive) for spec in specs}
        given_labels = archive.get(LABELS_KEY)
        labels = None if given_labels is None else class_numbers(given_labels, str(file))
        count = len(next(iter(columns.values())))
        others = {**columns, **({} if given_labels is None else {LABELS_KEY: given_labels})}
        for name, column in others.items():
            if len(column) != count:
                raise ConfigError(
                    f"{file}: {name!r} holds {len(column)} items, the others {count}",
                    file=str(file),
                    key=name,
                )
        for index in range(count):
            if given == limit:
                return
            cut = slice(index, index + 1) if card.batched else index
            item = {name: np.ascontiguousarray(column[cut]) for name, column in columns.items()}
            for spec in specs:
                wrong = disagreement(item[spec.name], spec, is_batched=card.batched)
                if wrong:
                    raise ConfigError(
                        f"{file}: item {index}: input {spec.name!r}: {wrong}",
                        file=str(file),
                        key=spec.name,
                    )
            yield item, None if labels is None else labels[index]
            given += 1


def _read_npz(file: Path) -> dict[str, Array]:
    """The arrays of a `.npz`. Raises: ConfigError for a file that is none, or holds a pickle."""
    try:
        # Opened here: numpy leaves a damaged file open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        # numpy raises ValueError for pickles, zipfile's own errors for damage.
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{file}: cannot be read as arrays: {said}", file=str(file)) from None


def _column(file: Path, name: str, archive: Mapping[str, Array]) -> Array:
    if name not in archive:
        there = ", ".join(archive) or "nothing"
        raise ConfigError(
            f"{file}: no array {name!r} for the model's input of that name; there: {there}",
            file=str(file),
            key=name,
        )
    if archive[name].ndim == 0:
        raise ConfigError(f"{file}: {name!r} is one number, not items", file=str(file), key=name)
    return archive[name]


def _from_pictures(
    files: list[Path], folder: Path, pipeline: Pipeline
) -> Iterator[tuple[Item, int | None]]:
    labels = _labels(folder)
    for file in files:
        place = str(file.relative_to(folder))
        yield _prepare(pipeline, "image", file.read_bytes(), file), labels.get(place)


def _labels(folder: Path) -> dict[str, int]:
    path = folder / LABELS_FILE
    if not path.is_file():
        return {}
    found: dict[str, int] = {}
    for number, row in enumerate(csv.reader(path.read_text(encoding="utf-8").splitlines()), 1):
        if len(row) != 2 or not row[1].strip().isdecimal():
            raise ConfigError(
                f"{path}: line {number} is {','.join(row)!r}; write file,class (class a whole "
                "number)",
                file=str(path),
                key=str(number),
            )
        found[row[0].strip()] = int(row[1])
    return found


def _from_texts(
    files: list[Path], pipeline: Pipeline, limit: int
) -> Iterator[tuple[Item, int | None]]:
    given = 0
    for file in files:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if given == limit:
                return
            if line.strip():
                yield _prepare(pipeline, "text", line.encode(), file), None
                given += 1


def _prepare(pipeline: Pipeline, name: str, content: bytes, file: Path) -> Item:
    try:
        return pipeline.prepare({name: bytes_array([content], (1,))}).arrays
    except SquadronError as error:
        raise ConfigError(f"{file}: {error.message}", file=str(file)) from None
