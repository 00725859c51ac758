"""Keras and TensorFlow models as ONNX, where TensorFlow is: `.keras`, `.h5`, SavedModel."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np

from cluster.errors import ConfigError
from cluster.optimization.elsewhere.environment import interpreter, run_worker
from cluster.optimization.export.module import MAX_RELATIVE, relative_difference

SUFFIXES = (".keras", ".h5")
WORKER = Path(__file__).with_name("keras_worker.py")


def is_keras(source: Path) -> bool:
    return source.suffix.lower() in SUFFIXES or (source / "saved_model.pb").is_file()


def keras_to_onnx(source: Path, target: Path) -> float:
    """Write `target`; returns the greatest difference to TensorFlow, over the largest output.

    Raises: ConfigError when TensorFlow is not here (saying how to get it), refuses the file, or
    answers otherwise than the graph that came out.
    """
    if not source.exists():
        raise ConfigError(f"{source}: no such file", file=str(source), key="model")
    interpreter("tensorflow")
    if source.suffix.lower() == ".keras" and not zipfile.is_zipfile(source):
        # Keras says that there is no such file.
        raise ConfigError(
            f"{source}: not a whole .keras file, which is a zip archive",
            file=str(source),
            key="model",
        )
    with tempfile.TemporaryDirectory() as temporary:
        check, made = Path(temporary) / "check.npz", Path(temporary) / "model.onnx"
        run_worker("tensorflow", WORKER, str(source.resolve()), str(made), str(check))
        difference = _difference(made, check)
        if not difference <= MAX_RELATIVE:
            raise ConfigError(
                f"{source}: the graph differs from TensorFlow by {difference:.3g} of the largest "
                f"output (at most {MAX_RELATIVE:g} is allowed)",
                file=str(source),
                key="model",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(made.read_bytes())
    return difference


def _difference(graph: Path, check: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    with np.load(check, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    feeds = {each.name: arrays[f"input_{i}"] for i, each in enumerate(session.get_inputs())}
    answers = session.run(None, feeds)
    return max(
        (relative_difference(arrays[f"output_{i}"], found) for i, found in enumerate(answers)),
        default=0.0,
    )
