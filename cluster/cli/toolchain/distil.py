"""`squadron distil`: a smaller model taught by a larger one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.progress import RichProgress
from cluster.cli.toolchain.options import AsJson, Model, Store, mendable, open_store, workspace
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.config.store import ModelStore
    from cluster.optimization.training.distil import Distilled


def distil(
    teacher: Model,
    student: Annotated[
        str,
        typer.Argument(
            help="layers:N of a Hugging Face encoder, or file.py:Class (a torch class)."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of .npz files, pictures (with labels.csv) or .txt files (a text a line): "
            "three quarters teach, the others judge."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the student [./TEACHER-student].")
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Put the student into the store under this name.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Items of a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Greatest learning rate.")] = 5e-4,
    max_items: Annotated[int, typer.Option(min=4, help="Items read from the data.")] = 2000,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Teach a smaller model to answer as a larger one does, and judge it on data it never saw.

    The student is exported to ONNX, prepared for as its teacher is. The gate's verdict is told, and
    stops nothing: whether the loss is worth the speed is yours to say.

    Examples:

      squadron distil all-minilm-l6-v2-torch layers:3 --data reviews --add minilm-l3

      squadron distil my_net.py:Large my_net.py:Small --data arrays --steps 1000 --json
    """
    with mendable(), workspace() as folder:
        from cluster.optimization.export.whole import beside
        from cluster.optimization.training.distil import distil as run
        from cluster.optimization.training.lessons import Schedule

        target = out if out is not None else Path(f"{Path(teacher).name.split(':')[-1]}-student")
        if target.exists():
            raise ConfigError(f"{target} exists; choose another with --out", key="out")
        kept = open_store(store)
        with RichProgress() as progress, progress.step(f"teach for {steps} steps"):
            made = run(
                teacher,
                student,
                _empty(folder / "student"),
                data=data,
                store=kept,
                workspace=folder / "work",
                schedule=Schedule(steps=steps, batch_size=batch_size, learning_rate=learning_rate),
                max_items=max_items,
                name=add or "",
            )
        with beside(target) as kept_folder:
            # Whole or not there, also when the disk is full or somebody has had enough.
            shutil.copytree(made.folder, kept_folder / "student").rename(target)
        if add is not None:
            _add(made, kept, add)
    _tell(made, target, as_json)


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _add(made: Distilled, store: ModelStore, name: str) -> None:
    from cluster.config.store import new_version, seal

    version = str(1 + max((int(card.version) for card in store.versions(name)), default=0))
    with new_version(store.root, name, version) as folder:
        for file in made.folder.iterdir():
            if file.name != "model.yaml":
                shutil.copyfile(file, folder / file.name)
        seal(folder, made.card.model_copy(update={"name": name, "version": version}))


def _tell(made: Distilled, target: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**made.as_dict(), "folder": str(target)}))
        return
    print(
        f"{target}: {made.student_bytes / 1e6:.1f} MB, taught by {made.teacher_bytes / 1e6:.1f} MB"
    )
    print(f"loss {made.log.first:.4f} -> {made.log.last:.4f} over {made.num_lessons} items")
    print(f"on the others: {made.verdict.label}")
    for reason in made.verdict.reasons:
        print(f"  {reason}")
