"""Which application serves a model: another one as soon as the store holds something else."""

from __future__ import annotations

import os
from pathlib import Path

from actors.repository.candidate import candidate_of
from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore, new_version, seal
from cluster.config.variant import VariantConfig
from cluster.control.repository import Wanted

TENSOR = {"datatype": "FP32", "shape": [-1, 4]}
SIGNATURE = {"inputs": [{"name": "x", **TENSOR}], "outputs": [{"name": "y", **TENSOR}]}


def put(root: Path, version: str, code: str) -> Path:
    """A Python model: code, which has no hash in its card."""
    with new_version(root, "m", version) as folder:
        (folder / "model.py").write_text(code)
        card = {"name": "m", "version": version, "format": "python", "signature": SIGNATURE}
        seal(folder, ModelCard.model_validate({**card, "python_class": "model:M"}))
    return root / "m" / version / "model.py"


def app(root: Path) -> str:
    wanted = Wanted(variant=VariantConfig(source="m"))
    return candidate_of("m", wanted, store=ModelStore(root), prefix="app+").app


def test_a_newer_version_is_another_application(tmp_path: Path) -> None:
    put(tmp_path, "1", "class M: ...")
    first = app(tmp_path)

    again = app(tmp_path)
    put(tmp_path, "2", "class M: ...")

    assert again == first
    assert app(tmp_path) != first


def test_a_file_that_is_replaced_in_place_is_another_application(tmp_path: Path) -> None:
    file = put(tmp_path, "1", "class M: ...")
    first = app(tmp_path)

    compiled = file.parent / "__pycache__" / "model.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    again = app(tmp_path)
    file.write_text("class M: pass")
    os.utime(file, ns=(1, 1))

    assert again == first
    assert app(tmp_path) != first
