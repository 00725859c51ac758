from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.engines.engine import EngineSetup
from cluster.engines.python import LoadContext, PythonEngine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.tensors import Array
from tests.contracts.tiny_models import TINY, card, sha256_of, with_card

X = np.ones((2, 4), np.float32)


class Recorder:
    """A model of a module, not of a file: notes what it is told."""

    seen: list[object]

    def load(self, context: LoadContext) -> None:
        self.seen = [context]
        Recorder.last = self  # type: ignore[attr-defined]

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if inputs["x"][0, 0] < 0:
            raise InvalidRequest("x must not be negative")
        return {"y": inputs["x"]}

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        self.seen.append(batch_sizes)

    def close(self) -> None:
        self.seen.append("closed")


class Unready:
    def load(self, context: LoadContext) -> None:
        raise FileNotFoundError("weights.bin")

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return inputs


class NoModel:
    pass


def named(python_class: str, folder: Path) -> PythonEngine:
    made = card(format="python", python_class=python_class)
    return PythonEngine(
        EngineSetup(card=made, folder=folder, device="cuda:1", threads=3, options={"a": 1})
    )


def doubler(folder: Path, mode: str = "") -> PythonEngine:
    setup = TINY["python"][1](folder)
    engine = PythonEngine(replace(setup, options={"mode": mode}))
    engine.load()
    return engine


def test_a_class_of_a_module_is_told_where_it_is_and_what_it_may_use(tmp_path: Path) -> None:
    engine = named(f"{__name__}:Recorder", tmp_path)
    engine.load()
    engine.warm_up((1, 8))
    engine.close()
    engine.close()

    context, sizes, closed = Recorder.last.seen  # type: ignore[attr-defined]
    assert isinstance(context, LoadContext)
    assert (context.folder, context.device, context.threads) == (tmp_path, "cuda:1", 3)
    assert context.options == {"a": 1}
    assert (sizes, closed) == ((1, 8), "closed")


def test_a_model_may_refuse_its_inputs_as_the_callers_mistake(tmp_path: Path) -> None:
    engine = named(f"{__name__}:Recorder", tmp_path)
    engine.load()

    with pytest.raises(InvalidRequest, match="must not be negative"):
        engine.infer({"x": -X})


def test_a_model_cannot_end_the_batching_thread(tmp_path: Path) -> None:
    """In the main thread the same exception is somebody's Ctrl-C, and goes on."""
    engine = doubler(tmp_path, "interrupt")

    with ThreadPoolExecutor(1) as thread, pytest.raises(EngineFailed, match="KeyboardInterrupt"):
        thread.submit(engine.infer, {"x": X}).result()
    with pytest.raises(KeyboardInterrupt):
        engine.infer({"x": X})


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("raise", "raised ZeroDivisionError: the user's own words"),
        ("exit", "raised SystemExit: 3"),
        ("write", "raised ValueError"),
        ("double", "output 'y': expected datatype FP32, got FP64"),
        ("short", "output 'y': 1 rows for 2 rows of input"),
        ("list", "gave a list as output 'y'"),
        ("none", "gave a NoneType, expected a dict"),
        ("more", "gave an output 'z'; the card has y"),
        ("nothing", "gave no output 'y'"),
    ],
)
def test_what_a_model_does_wrong_is_told_without_a_traceback(
    mode: str, says: str, tmp_path: Path
) -> None:
    engine = doubler(tmp_path, mode)

    with pytest.raises(EngineFailed, match=says) as caught:
        engine.infer({"x": X})
    assert "Traceback" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("python_class", "says"),
    [
        ("", "expected `package.module:Class`"),
        ("doubler.py", "expected `package.module:Class`"),
        ("doubler.py:", "expected `package.module:Class`"),
        ("missing.py:Doubler", "is missing"),
        ("../outside.py:Doubler", "outside the model's folder"),
        ("nowhere.at_all:Doubler", "cannot be imported: ModuleNotFoundError"),
        ("broken.py:Doubler", "cannot be imported: SyntaxError"),
        (f"{__name__}:Absent", "cannot be imported: AttributeError"),
        (f"{__name__}:NoModel", "has no method 'load'"),
        (f"{__name__}:Unready", "loading failed: FileNotFoundError: weights.bin"),
    ],
)
def test_a_class_that_cannot_be_had_is_the_operators_mistake(
    python_class: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("class Doubler(:", encoding="utf-8")

    with pytest.raises(ConfigError, match=says):
        named(python_class, tmp_path).load()


def test_the_file_itself_is_checked_when_the_card_gives_no_other_artefact(tmp_path: Path) -> None:
    setup = TINY["python"][1](tmp_path)
    PythonEngine(with_card(setup, sha256=sha256_of(tmp_path / "doubler.py"))).load()

    with pytest.raises(ConfigError, match=r"doubler\.py: the file is not the one"):
        PythonEngine(with_card(setup, sha256="0" * 64)).load()


def test_two_models_may_have_files_of_one_name(tmp_path: Path) -> None:
    engines = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        setup = TINY["python"][1](folder)
        source = (folder / "doubler.py").read_text(encoding="utf-8")
        changed = source.replace("2 * x + 1", "2 * x + 1" if name == "a" else "-x")
        (folder / "doubler.py").write_text(changed, encoding="utf-8")
        engines.append(PythonEngine(with_card(setup, name=name)))
        engines[-1].load()

    assert [engine.infer({"x": X})["y"][0, 0] for engine in engines] == [3, -1]
