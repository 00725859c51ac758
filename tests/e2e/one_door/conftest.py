"""One running Squadron for all files of this folder, ended with the last of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.running import Running, running
from tests.stateful_models import serve_file, write_store
from tests.triton_repository import (
    SUMS,
    write_openvino_model,
    write_repository,
    write_sums,
)


@pytest.fixture(scope="package")
def served(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An imported Triton repository; beside it stateful models and some whose answers are kept."""
    folder = tmp_path_factory.mktemp("one_door")
    store, run = folder / "store", folder / "run"
    run.mkdir()
    file = imported(folder / "repository", store, folder / "imported.yaml")
    write_store(store)
    serve_file(store, folder / "stateful.yaml", running_sum=2, far_sum=2)
    content = yaml.safe_load(file.read_text())
    args = content["applications"][0]["args"]
    echo = args_of(root / "serve_configs/dev.yaml")["variants"]["echo"]
    beside = {**args_of(folder / "stateful.yaml")["variants"], "kept": kept(echo)}
    # So many replicas at a tenth of a core each are more than two cores.
    few = {"num_cpus": 0.01}
    args["variants"] |= {name: {**each, "resources": few} for name, each in beside.items()}
    args.setdefault("ensembles", {})["twice"] = TWICE
    (folder / "all.yaml").write_text(yaml.safe_dump(content))
    with running(folder / "all.yaml", run, store=store) as started:
        yield started


def imported(repository: Path, store: Path, file: Path) -> Path:
    """The config that `squadron models import` writes."""
    write_openvino_model(write_repository(repository), 'backend: "openvino"')
    write_sums(repository / "sums/1/model.onnx")
    (repository / "sums/config.pbtxt").write_text(SUMS)
    program = Path(sys.executable).with_name("squadron")
    arguments = ["--store", store, "--out", file, "--strict"]
    subprocess.run([program, "models", "import", repository, *arguments], check=True, timeout=120)
    return file


def args_of(file: Path) -> Any:
    return yaml.safe_load(file.read_text())["applications"][0]["args"]


def kept(echo: dict[str, Any]) -> dict[str, Any]:
    """y = 2 * x + 1 takes 300 ms, and its answers are kept."""
    card = {**echo["card"], "name": "kept"}
    cache = {"enabled": True, "ttl_s": 3600}
    return {**echo, "card": card, "response_cache": cache, "options": {"delay_ms": 300}}


TWICE = {
    "inputs": ["x"],
    "outputs": ["y"],
    "steps": [
        {"model": "kept", "outputs": {"y": "half"}},
        {"model": "kept", "inputs": {"x": "half"}, "outputs": {"y": "y"}},
    ],
}
"""`kept` two times."""
