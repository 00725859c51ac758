"""Knowledge distillation: a smaller model taught by a larger one, judged on what it never saw."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cluster.config.model_card import ModelCard, Provenance
from cluster.config.store import ModelStore, seal
from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.export.program import rename_outputs
from cluster.optimization.gate.gate import GateLimits, Verdict, judge
from cluster.optimization.intake.data import Dataset, load_dataset
from cluster.optimization.intake.files import side_files
from cluster.optimization.intake.model import GivenModel, example_of, load_class, open_model
from cluster.optimization.measure.variant import Variant, answers, opened, ranks_classes
from cluster.optimization.training.imitate import Teacher, TrainingLog, imitate, taught_by
from cluster.optimization.training.lessons import Item, Lessons, Schedule
from cluster.optimization.training.thinner import save_encoder, thinner_encoder
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYERS = re.compile(r"^layers:(?P<number>\d+)$")
_CLASS = re.compile(r"^(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)$")
WHAT_A_STUDENT_IS = "layers:N (of a Hugging Face encoder), file.py:Class or a torch module"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """The student in `folder`, sealed with its card, ready for the store.

    `verdict`: student against teacher on items that it did not learn from.
    """

    card: ModelCard
    folder: Path
    log: TrainingLog
    verdict: Verdict
    num_lessons: int
    teacher_bytes: int
    student_bytes: int

    def as_dict(self) -> dict[str, object]:
        return {
            "student": self.card.name,
            "folder": str(self.folder),
            "training": {**self.log.as_dict(), "items": self.num_lessons},
            "teacher_bytes": self.teacher_bytes,
            "student_bytes": self.student_bytes,
            "gate": self.verdict.as_dict(),
            "quality": self.verdict.label,
        }


def distil(
    teacher: str | Path | nn.Module,
    student: str | nn.Module,
    folder: Path,
    *,
    data: Path | Dataset,
    store: ModelStore,
    workspace: Path,
    schedule: Schedule | None = None,
    limits: GateLimits | None = None,
    example: Mapping[str, Array] | None = None,
    max_items: int = 2000,
    name: str = "",
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Distilled:
    """Teach `student` (see `WHAT_A_STUDENT_IS`) and write it to the empty `folder`.

    The teacher may be anything that can be optimised; it is run by the engine that serves it. Three
    quarters of the data teach, the others judge.

    Raises: ConfigError for a teacher, student or data that cannot be used.
    """
    matched = LAYERS.match(student) if isinstance(student, str) else None
    directory = _directory(teacher, store) if matched else None
    given = open_model(
        directory or teacher, store=store, workspace=workspace, example=example, name=name
    )
    if given.module is None and given.onnx is None:
        raise ConfigError(f"format {given.card.format} cannot teach", key="teacher")
    dataset = data
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, given.card, given.folder, max_items)
    judged, learnt = dataset.taught(), dataset.split()[1]
    if not judged.items or not dataset.is_real:
        raise ConfigError("four items of real data or more are needed to teach with", key="data")
    module = _student(student, directory, matched)
    lessons = Lessons(
        items=learnt.items, labels=learnt.labels, ranks_classes=ranks_classes(given.card)
    )
    with _teaching(given) as ask:
        log = imitate(module, ask, lessons, schedule or Schedule(), on_step=on_step)
    card = _export(module, given, directory, folder, name=name)
    variant = Variant(card=card, folder=folder)
    source = Variant(card=given.card, folder=given.folder)
    with opened(source) as run:
        expected = answers(run, judged.items, given.card)
    with opened(variant) as run:
        found = answers(run, judged.items, card)
    verdict = judge(
        expected,
        found,
        labels=judged.labels,
        ranks_classes=ranks_classes(given.card),
        is_real_data=True,
        limits=limits or GateLimits(),
    )
    notes = (
        f"taught by {given.name} (sha256 {given.sha256}) in {len(log.losses)} steps on "
        f"{len(learnt.items)} items; {verdict.label}"
    )
    kept = card.model_copy(
        update={"provenance": Provenance(file=card.artefact, recipe="distilled", notes=notes)}
    )
    return Distilled(
        card=seal(folder, kept),
        folder=folder,
        log=log,
        verdict=verdict,
        num_lessons=len(learnt.items),
        teacher_bytes=source.num_bytes,
        student_bytes=variant.num_bytes,
    )


def _student(
    student: str | nn.Module, directory: Path | None, matched: re.Match[str] | None
) -> nn.Module:
    if not isinstance(student, str):
        return student
    if matched is not None:
        assert directory is not None, "`_directory` found it"
        return thinner_encoder(directory, int(matched["number"]))[0]
    named = _CLASS.match(student)
    if named is None or not Path(named["file"]).is_file():
        raise ConfigError(
            f"student {student!r}; allowed: {WHAT_A_STUDENT_IS}", key="student", value=student
        )
    return load_class(Path(named["file"]), named["name"])


def _directory(teacher: object, store: ModelStore) -> Path:
    """The Hugging Face directory of a teacher whose layers are counted."""
    if isinstance(teacher, str | Path):
        if (Path(teacher) / "config.json").is_file():
            return Path(teacher)
        name, _, version = str(teacher).partition("/")
        if store.versions(name) and (store.folder(name, version) / "config.json").is_file():
            return store.folder(name, version)
    raise ConfigError(
        f"student layers:N is for the encoder of a Hugging Face directory, which {teacher} is not; "
        f"a student is {WHAT_A_STUDENT_IS}",
        key="student",
    )


@contextmanager
def _teaching(given: GivenModel) -> Iterator[Teacher]:
    """By the serving engine where there is an artefact: it is faster than torch and what counts."""
    if given.module is not None:
        yield taught_by(given.module)
        return
    with opened(Variant(card=given.card, folder=given.folder)) as run:

        def ask(rows: Item) -> dict[str, Tensor]:
            return {name: torch.from_numpy(array) for name, array in run(rows).items()}

        yield ask


def _export(
    module: nn.Module, given: GivenModel, directory: Path | None, folder: Path, *, name: str
) -> ModelCard:
    """The student as ONNX, prepared for and read as the teacher is."""
    called = name or f"{given.name}-student"
    if directory is not None:
        from cluster.optimization.encoder import export_encoder

        save_encoder(module, directory, folder / "encoder")
        made = export_encoder(folder / "encoder", folder, name=called, version="1")
        for each in (folder / "encoder").iterdir():
            each.unlink()
        (folder / "encoder").rmdir()
        return made
    example = given.example or example_of(module, ())
    made = export_module(module, example, folder, name=called)
    wanted = [each.name for each in given.card.signature.outputs]
    rename_outputs(folder / made.artefact, wanted)
    for file in side_files(given.card, given.folder):
        (folder / file.name).write_bytes(file.read_bytes())
    signature = made.signature.model_copy(
        update={
            "outputs": [
                each.model_copy(update={"name": called_so})
                for each, called_so in zip(made.signature.outputs, wanted, strict=True)
            ]
        }
    )
    return given.card.model_copy(
        update={
            "name": called,
            "format": "onnx",
            "artefact": made.artefact,
            "sha256": "",
            "batched": made.batched,
            "signature": signature,
            "precision": "fp32",
        }
    )
