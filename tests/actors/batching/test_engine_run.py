"""Batches that do not fit the memory, with memory that is really short."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from actors.batching.engine_run import EngineRun
from cluster.engines.engine import EngineSetup
from cluster.engines.fake import FakeEngine
from cluster.errors import OutOfMemory
from cluster.tensors import Array
from tests.contracts.tiny_models import card

CROWDED = """
    import resource, sys
    import numpy as np
    from actors.batching.engine_run import EngineRun
    from cluster.engines.engine import EngineSetup
    from cluster.engines.python import PythonEngine
    from cluster.config.model_card import ModelCard
    from pathlib import Path

    card = ModelCard.model_validate(dict(
        name="hungry", version="1", format="python", batched=True,
        python_class="hungry.py:Hungry",
        signature=dict(
            inputs=[dict(name="x", datatype="FP32", shape=[-1, 1])],
            outputs=[dict(name="y", datatype="FP32", shape=[-1, 1])],
        ),
    ))
    engine = PythonEngine(EngineSetup(card=card, folder=Path("{folder}"), device="cpu"))
    engine.load()
    run = EngineRun(engine, max_rows=16, is_batched=True)
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    # Room for about three rows of 256 MiB.
    limit = held + 3 * 2**28 + 2**27
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    x = np.arange(16, dtype=np.float32).reshape(16, 1)
    y = run.infer(dict(x=x), 16)["y"]
    assert y.tolist() == (x + 1).tolist()
    print("rows", run.max_rows)
    y = run.infer(dict(x=x[:5]), 5)["y"]
    assert y.tolist() == (x[:5] + 1).tolist()
    print("again", run.max_rows)
"""

HUNGRY = """
    import numpy as np

    class Hungry:
        def load(self, context):
            pass

        def infer(self, inputs):
            rows = len(inputs["x"])
            held = np.empty((rows, 2**28), np.uint8)
            held[:, 0] = 1
            return {"y": inputs["x"] + held[:, :1]}
"""


def test_a_batch_too_large_for_the_memory_is_run_in_parts_and_the_size_is_remembered(
    tmp_path: Path, root: Path
) -> None:
    (tmp_path / "hungry.py").write_text(textwrap.dedent(HUNGRY))
    code = textwrap.dedent(CROWDED).replace("{folder}", str(tmp_path))

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["rows 2", "again 2"]


class Short(FakeEngine):
    """y = 2 * x + 1 for at most `most` rows, else what a real engine raises."""

    most = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(EngineSetup(card=card(), folder=folder))
        self.sizes: list[int] = []
        self.load()

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        for rows in batch_sizes:
            self.infer({"x": np.zeros((rows, 4), np.float32)})

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        rows = inputs["x"].shape[0]
        self.sizes.append(rows)
        if rows > self.most:
            raise OutOfMemory("too little memory")
        return super().infer(inputs)


def test_one_row_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = EngineRun(Short(tmp_path), max_rows=4, is_batched=True)

    with pytest.raises(OutOfMemory):
        run.infer({"x": np.zeros((4, 4), np.float32)}, 4)

    assert run.max_rows == 1


def test_warm_up_finds_the_batch_that_fits(tmp_path: Path) -> None:
    engine = Short(tmp_path)
    engine.most = 5
    run = EngineRun(engine, max_rows=32, is_batched=True)

    run.warm_up(32)

    assert run.max_rows == 4
    assert engine.sizes == [32, 16, 8, 4]


def test_rows_are_joined_in_memory_that_is_used_again(tmp_path: Path) -> None:
    engine = Short(tmp_path)
    engine.most = 8
    run = EngineRun(engine, max_rows=8, is_batched=True)
    one, two = np.ones((2, 4), np.float32), np.full((3, 4), 2, np.float32)

    first = run.join([{"x": one}, {"x": two}])["x"]
    kept = first.copy()
    second = run.join([{"x": two}, {"x": one}])["x"]

    assert kept.tolist() == [[1] * 4] * 2 + [[2] * 4] * 3
    assert np.shares_memory(first, second)
    assert second.tolist() == [[2] * 4] * 3 + [[1] * 4] * 2


def test_an_engine_that_gives_back_what_it_was_given_gives_a_copy(tmp_path: Path) -> None:
    class Echo(Short):
        def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
            return {"y": inputs["x"][:]}

    run = EngineRun(Echo(tmp_path), max_rows=8, is_batched=True)
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)

    answer = run.infer(run.join([{"x": one}, {"x": two}]), 2)["y"]
    run.join([{"x": two}, {"x": two}])

    assert answer.tolist() == [[1] * 4, [2] * 4]
