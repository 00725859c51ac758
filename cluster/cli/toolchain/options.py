"""What the toolchain's commands have in common."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cluster.config.store import ModelStore, default_root
from cluster.errors import ConfigError, SquadronError
from cluster.models import MAX_THREADS
from cluster.optimization.search.recipe import Tuning

Model = Annotated[
    str,
    typer.Argument(
        help="A .onnx, .pt2 or .pt file, NAME or NAME/VERSION of the store, a folder with "
        "model.yaml, a Hugging Face directory, or file.py:Class."
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's folder \\[default: $SQUADRON_MODEL_STORE, else ./models]."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of .npz files, pictures (with labels.csv: file,class) or .txt files (a text "
        "a line); random inputs when left out."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Shape = Annotated[
    list[str] | None,
    typer.Option("--shape", help="NAME=1,3,224,224 of random inputs, where sizes are free."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME:DATATYPE:DIMS, in order, where the model does not say."),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("--output", help="NAME:DATATYPE:DIMS, in order, where the model does not say."),
]
Tune = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=NUMBER for recipes that change weights (level max): prune_ratio, rank_energy, "
        "training_steps, learning_rate."
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Intra-op threads.")]


def open_store(store: Path | None) -> ModelStore:
    return ModelStore(store if store is not None else default_root())


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Raises: ConfigError for what is not NAME=1,3,224,224."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, equals, sizes = text.rpartition("=")
        parts = [part.strip() for part in sizes.split(",")]
        if not equals or not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise ConfigError(f"--shape {text!r}: write NAME=1,3,224,224", key="shape", value=text)
        found[name] = tuple(int(part) for part in parts)
    return found


def parse_tuning(texts: list[str] | None) -> Tuning:
    """Raises: ConfigError for a name that there is not, and a value that is no number for it."""
    names = ("prune_ratio", "rank_energy", "training_steps", "learning_rate")
    numbers: dict[str, float] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            numbers[""] = 0
        if name not in names or "" in numbers:
            allowed = ", ".join(names)
            raise ConfigError(
                f"--tune {text!r}: write NAME=NUMBER, NAME one of {allowed}",
                key="tune",
                value=text,
                allowed=allowed,
            )
    usual = Tuning()
    schedule = replace(
        usual.schedule,
        steps=int(numbers.get("training_steps", usual.schedule.steps)),
        learning_rate=numbers.get("learning_rate", usual.schedule.learning_rate),
    )
    return Tuning(
        prune_ratio=numbers.get("prune_ratio", usual.prune_ratio),
        rank_energy=numbers.get("rank_energy", usual.rank_energy),
        schedule=schedule,
    )


def parse_sizes(text: str) -> tuple[int, ...]:
    """Raises: ConfigError for what is not 1,8,32."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--batch-sizes {text!r}: write whole numbers, as in 1,8,32",
            key="batch_sizes",
            value=text,
        )
    return tuple(int(part) for part in parts)


def bytes_of_mb(megabytes: float | None) -> int | None:
    """Raises: ConfigError for what is no number above 0."""
    if megabytes is None:
        return None
    if not 0 < megabytes < math.inf:
        raise ConfigError(
            f"--max-size-mb {megabytes:g}; allowed: above 0", key="max_size_mb", value=megabytes
        )
    return int(megabytes * 1e6)


def writable(*files: Path | None) -> None:
    """Asked before the work. Raises: ConfigError for a file whose folder is not there, and for a
    folder in its place."""
    for file in files:
        if file is None:
            continue
        if file.is_dir() or not file.absolute().parent.is_dir():
            what = "is a folder" if file.is_dir() else "its folder is not there"
            raise ConfigError(f"{file} cannot be written: {what}", file=str(file))


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder for exports that nobody keeps."""
    with tempfile.TemporaryDirectory(prefix="squadron-") as folder:
        yield Path(folder)


@contextmanager
def mendable(on_stop: str = "") -> Iterator[None]:
    """The work of a command. What the caller can mend is one message and exit code 2: also a file
    that cannot be read or written. Ctrl-C is one message and exit code 130; `on_stop`: what it says
    besides. What is printed meanwhile (by libraries, by a class of the caller's own) goes to
    stderr: stdout is the answer's."""
    with _noting_ctrl_c() as was_stopped:
        try:
            with redirect_stdout(sys.stderr):
                yield
        except BaseException as error:
            if was_stopped():
                print(f"squadron: stopped{on_stop and '; ' + on_stop}", file=sys.stderr)
                raise typer.Exit(130) from None
            if isinstance(error, OSError) and error.filename is not None:
                said = f"{error.filename}: {error.strerror}"
            elif isinstance(error, SquadronError):
                said = error.message
            else:
                raise
            print(f"squadron: {said}", file=sys.stderr)
            raise typer.Exit(2) from None


@contextmanager
def _noting_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is remembered: libraries make errors of their own of it (a module in C++ that is just
    being imported says that its initialisation failed)."""
    stopped = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
