"""One repository, served by Triton as it is and by Squadron after `squadron models import`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from loadtests.servers import ServerFailed
from tests.conformance.differential.triton import triton
from tests.e2e.running import running
from tests.triton_repository import write_repository, write_sequence_model

pytestmark = [pytest.mark.e2e]
BACKEND = Path(__file__).with_name("onnx_backend.py")
MODELS = ("simple", "scaler", "picker", "pipeline", "steps")
ROWS = np.array([[1, 2, 3], [9, 4, 5], [0, -1, 0.5]], np.float32)
NUMBERS = np.arange(48, dtype=np.int32).reshape(3, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one server says. `answers`: case -> output -> values, or the error's text."""

    index: list[tuple[str, str]]
    ready: dict[str, bool]
    metadata: dict[str, Any]
    configs: dict[str, Any]
    answers: dict[str, Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_repository(tmp_path_factory.mktemp("same") / "repository")
    # Completing a configuration from the graph is the backend's work: ours here is not Triton's.
    shutil.rmtree(folder / "bare")
    return write_sequence_model(folder)


@pytest.fixture(scope="module")
def theirs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    scratch = tmp_path_factory.mktemp("triton")
    try:
        with triton(repository, scratch, python_backends={"onnxruntime": BACKEND}) as server:
            return said(server.http.removeprefix("http://"), server.grpc)
    except ServerFailed as error:
        pytest.skip(f"Triton cannot be had here: {error}")


@pytest.fixture(scope="module")
def ours(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("squadron")
    program = Path(sys.executable).with_name("squadron")
    options = ["--store", folder / "store", "--out", folder / "same.yaml", "--strict"]
    subprocess.run([program, "models", "import", repository, *options], check=True, timeout=120)
    with running(folder / "same.yaml", folder) as server:
        return said(server.http_address, server.grpc)


def said(http: str, grpc: str) -> Said:
    answers: dict[str, Any] = {}
    for module, url in ((http_client, http), (grpc_client, grpc)):
        with module.InferenceServerClient(url) as client:
            for name, answer in asked(module, client):
                answers[f"{module.__name__}: {name}"] = answer
    with http_client.InferenceServerClient(http) as client:
        return Said(
            index=sorted((e["name"], e["version"]) for e in client.get_model_repository_index()),
            ready={v: client.is_model_ready("scaler", v) for v in ("", "1", "2", "3")},
            metadata={name: client.get_model_metadata(name) for name in MODELS},
            configs={name: client.get_model_config(name) for name in MODELS},
            answers=answers,
        )


def asked(module: Any, client: Any) -> Iterator[tuple[str, Any]]:
    def ask(model: str, inputs: dict[str, np.ndarray], version: str = "", **more: Any) -> Any:
        tensors = []
        for name, array in inputs.items():
            datatype = {"int32": "INT32", "float32": "FP32"}[array.dtype.name]
            tensor = module.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        try:
            answer = client.infer(model, tensors, model_version=version, **more)
        except InferenceServerException as error:
            return str(error.status()).removeprefix("StatusCode.")
        response = answer.get_response()
        outputs = response["outputs"] if isinstance(response, dict) else response.outputs
        names = [each["name"] if isinstance(each, dict) else each.name for each in outputs]
        return {name: answer.as_numpy(name).tolist() for name in sorted(names)}

    two = {"INPUT0": NUMBERS, "INPUT1": NUMBERS[::-1].copy()}
    yield "sum and difference", ask("simple", two)
    yield "first priority", ask("simple", two, priority=1)
    yield "one output", ask("simple", two, outputs=[module.InferRequestedOutput("OUTPUT1")])
    yield "newest version", ask("scaler", {"x": ROWS})
    for version in ("1", "2"):
        yield f"version {version}", ask("scaler", {"x": ROWS}, version=version)
    yield "version that is not there", ask("scaler", {"x": ROWS}, version="3")
    yield "scores", ask("picker", {"x": ROWS})
    for count in (1, 2, 3):
        classes = [module.InferRequestedOutput("scores", class_count=count)]
        yield f"{count} classes by name", ask("picker", {"x": ROWS}, outputs=classes)
    yield "ensemble", ask("pipeline", {"raw": ROWS})
    yield "batch too large", ask("scaler", {"x": np.zeros((5, 3), np.float32)})
    yield "wrong shape", ask("scaler", {"x": np.zeros((1, 4), np.float32)})
    yield "wrong name", ask("scaler", {"z": ROWS})
    yield "wrong datatype", ask("scaler", {"x": ROWS.astype(np.int32)})
    yield "unknown model", ask("nobody", {"x": ROWS})
    one = {"INPUT": NUMBERS[:1, 5:6].copy()}
    for step in range(4):
        for sequence in (31, 32):
            flags = {"sequence_start": step == 0, "sequence_end": step == 3}
            answer = ask("steps", one, sequence_id=sequence, **flags)
            yield f"sequence {sequence}, request {step}", answer
    yield "sequence that was not started", ask("steps", one, sequence_id=33)
    yield "sequence that has ended", ask("steps", one, sequence_id=31)
    yield "no sequence", ask("steps", one)


def test_every_answer_is_the_same(theirs: Said, ours: Said) -> None:
    assert ours.answers == theirs.answers


def test_metadata_is_the_same_but_for_the_platform(theirs: Said, ours: Said) -> None:
    for name in MODELS:
        for key in ("name", "versions", "inputs", "outputs"):
            assert ours.metadata[name][key] == theirs.metadata[name][key], (name, key)
    assert ours.metadata["scaler"]["versions"] == ["1", "2"]


def test_the_index_and_readiness_name_the_same_versions(theirs: Said, ours: Said) -> None:
    assert ours.index == theirs.index
    assert ours.ready == theirs.ready
    assert ("scaler", "1") in ours.index


def test_the_configuration_says_the_same_of_what_both_have(theirs: Said, ours: Said) -> None:
    for name in MODELS:
        mine, their = ours.configs[name], theirs.configs[name]
        assert mine["max_batch_size"] == their["max_batch_size"], name
        for side in ("input", "output"):
            assert tensors(mine[side]) == tensors(their[side]), name
    mine, their = (said.configs["steps"]["sequence_batching"] for said in (ours, theirs))
    assert controls(mine) == controls(their)
    for key in ("max_candidate_sequences", "max_queue_delay_microseconds"):
        assert int(mine["oldest"][key]) == int(their["oldest"][key])
    mine, their = ours.configs["simple"], theirs.configs["simple"]
    for key in ("preferred_batch_size", "max_queue_delay_microseconds"):
        assert mine["dynamic_batching"][key] == their["dynamic_batching"][key]
    assert mine["instance_group"][0]["count"] == their["instance_group"][0]["count"] == 2


def controls(sequences: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each control's tensor, kind and what it says; fields at their default may be left out."""
    return sorted(
        (entry["name"], each["kind"], str(each.get("int32_false_true") or each["data_type"]))
        for entry in sequences["control_input"]
        for each in entry["control"]
    )


def tensors(entries: list[dict[str, Any]]) -> list[tuple[str, str, list[int]]]:
    return [
        (each["name"], each["data_type"], [int(size) for size in each["dims"]]) for each in entries
    ]
