"""Models are loaded, changed and unloaded while the server runs, by tritonclient."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import yaml
from numpy.testing import assert_allclose
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from cluster.client import Client
from cluster.config.store import CARD_FILE, ModelStore
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.optimization.add import add_model
from tests.cluster.engines.sharded.directories import llama, saved
from tests.e2e.running import Running, running
from tests.triton_repository import write_model, write_scaler

pytestmark = pytest.mark.e2e

APPLICATION = {"name": "squadron", "import_path": "actors.app:build", "route_prefix": "/"}
X = np.array([[1, 2, 3]], np.float32)
PAUSE_S = 0.005
"""Between a caller's requests: without, they take the cores that a new replica starts on."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    folder = tmp_path_factory.mktemp("store")
    store = ModelStore(folder / "store")
    factors = (("double", 2.0), ("triple", 3.0), ("spare", 5.0), ("two", 7.0), ("two", 8.0))
    for name, factor in factors:
        add_model(write_scaler(folder / f"{name}.onnx", factor=factor), store, name)
    return store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("controlled")


@pytest.fixture(scope="module")
def served(store: ModelStore, folder: Path) -> Iterator[Running]:
    args = {
        "server": {"repository_control": "explicit"},
        "variants": {
            "double": {"source": "double"},
            "triple": {"source": "triple"},
            "two": {"source": "two/2"},
            "two-v1": {"source": "two/1", "version_of": "two"},
        },
        "ensembles": {
            "six": {
                "inputs": ["x"],
                "outputs": ["z"],
                "steps": [
                    {"model": "double", "outputs": {"y": "twice"}},
                    {"model": "triple", "inputs": {"x": "twice"}, "outputs": {"y": "z"}},
                ],
            }
        },
    }
    content = {
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [
            {
                "name": "squadron",
                "import_path": "actors.app:build",
                "route_prefix": "/",
                "args": args,
            }
        ],
    }
    (folder / "controlled.yaml").write_text(yaml.safe_dump(content))
    with running(folder / "controlled.yaml", folder, store=store.root) as started:
        yield started


class Both:
    """The same calls over HTTP and gRPC."""

    def __init__(self, module: Any, url: str) -> None:
        self.module = module
        self.url = url
        self.client = module.InferenceServerClient(url)
        self.is_grpc = module is grpc_client

    def ask(self, model: str, output: str = "y", version: str = "") -> list[float]:
        tensor = self.module.InferInput("x", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)
        answer = self.client.infer(model, [tensor], model_version=version)
        found: list[float] = answer.as_numpy(output).ravel().tolist()
        return found

    def index(self) -> dict[str, tuple[str, str]]:
        found = self.client.get_model_repository_index()
        if self.is_grpc:
            return {each.name: (each.state, each.reason) for each in found.models}
        return {each["name"]: (each["state"], each["reason"]) for each in found}

    def max_batch_size(self, model: str) -> int:
        found = self.client.get_model_config(model)
        return int(found.config.max_batch_size if self.is_grpc else found["max_batch_size"])


@pytest.fixture(params=[http_client, grpc_client], ids=["http", "grpc"])
def changing(request: pytest.FixtureRequest, served: Running) -> Iterator[Both]:
    """For the last test: what it loads stays as it leaves it."""
    url = served.http_address if request.param is http_client else served.grpc
    found = Both(request.param, url)
    yield found
    found.client.close()


@pytest.fixture
def both(changing: Both) -> Iterator[Both]:
    yield changing
    for model in ("double", "triple", "six"):
        changing.client.load_model(model)


over_either = pytest.mark.parametrize(
    "changing",
    [http_client, pytest.param(grpc_client, marks=pytest.mark.whole)],
    ids=["http", "grpc"],
    indirect=True,
)
"""Seconds of work for the server, whichever door is told: `make test` asks over HTTP only."""


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.message())


def test_an_unloaded_model_is_known_and_not_ready_until_it_is_loaded(both: Both) -> None:
    both.client.unload_model("double")
    assert both.client.is_model_ready("double") is False
    assert both.index()["double"] == ("UNAVAILABLE", "unloaded")
    said = refusal(lambda: both.ask("double"))
    assert said == "Request for unknown model: 'double' has no available versions"

    both.client.load_model("double")
    assert both.client.is_model_ready("double") is True
    assert both.ask("double") == [2, 4, 6]


def test_all_versions_of_a_model_are_unloaded_and_loaded_together(both: Both) -> None:
    assert [both.ask("two", version=version)[0] for version in ("", "1", "2")] == [8, 7, 8]

    both.client.unload_model("two")
    for version in ("", "1", "2"):
        said = refusal(partial(both.ask, "two", version=version))
        assert said == "Request for unknown model: 'two' has no available versions"
    both.client.load_model("two")

    assert [both.ask("two", version=version)[0] for version in ("", "1", "2")] == [8, 7, 8]


@over_either
def test_an_unloaded_model_has_no_process(served: Running, both: Both) -> None:
    both.client.unload_model("triple")

    def gone() -> bool:
        return not served.pids("variant-triple")

    assert eventually(gone)


def test_the_server_stays_ready_and_the_index_filters(both: Both, served: Running) -> None:
    both.client.unload_model("double")

    assert both.client.is_server_ready()
    found = httpx.post(f"{served.http}/v2/repository/index", json={"ready": True}).json()
    assert [each["name"] for each in found] == ["triple", "two", "two"]


@pytest.mark.parametrize("door", ["http", pytest.param("grpc", marks=pytest.mark.whole)])
def test_the_sdk_has_a_model_cut_into_slices_while_the_server_runs(
    served: Running, store: ModelStore, door: str
) -> None:
    url = served.http if door == "http" else f"grpc://{served.grpc}"
    # One for each: the weights are drawn anew, which a card without a checksum does not say.
    name = f"words-{door}"
    folder = store.root / name / "1"
    card = saved(llama(), folder).model_copy(update={"name": name})
    (folder / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    ids = np.array([[5, 6, 7, 8]])
    try:
        with Client(url, timeout_s=10) as there, Client(store=store.root) as here:
            expected = here.load_model(name).predict(input_ids=ids)["logits"]
            cut = there.shard_model(name, 2, strategy="tensor")

            assert_allclose(cut.predict(input_ids=ids)["logits"], expected, atol=1e-4)
            assert len(served.pids(f"squadron:{name}:")) == 2
            bound = cut.enable_memory_optimization(max_memory_mb=64)["max_memory_mb"]
            gpu = cut.enable_gpu_acceleration()
            assert bound.acts, bound.says
            assert gpu.acts == torch.cuda.is_available(), gpu.says
            assert_allclose(cut.predict(input_ids=ids)["logits"], expected, atol=1e-4)
            # Over what was asked for before: it is still in two.
            assert eventually(lambda: len(served.pids(f"squadron:{name}:")) == 2)
            with pytest.raises(InvalidRequest, match="does not divide the 12 attention heads"):
                there.shard_model(name, 5, strategy="tensor")
            with pytest.raises(InvalidRequest, match="there is no layer 4"):
                there.shard_model(name, shard_config={"shard_map": {"layers.0-9": "cpu"}})
            with pytest.raises(ModelNotFound, match=r"no model 'nobody'.*; allowed: .*words"):
                there.shard_model("nobody", 2)
            assert_allclose(cut.predict(input_ids=ids)["logits"], expected, atol=1e-4)
    finally:
        httpx.post(f"{served.http}/v2/repository/models/{name}/unload", timeout=60)
        shutil.rmtree(store.root / name)


@over_either
def test_an_override_with_a_number_in_quotes_shows_and_goes_with_the_next_load(both: Both) -> None:
    both.client.load_model("double", config=json.dumps({"max_batch_size": "16"}))
    assert both.max_batch_size("double") == 16
    assert both.ask("double") == [2, 4, 6]

    both.client.load_model("double")
    assert both.max_batch_size("double") == 8


def unloaded(both: Both) -> set[str]:
    return {name for name, (_, reason) in both.index().items() if reason == "unloaded"}


def test_an_ensemble_is_unloaded_with_what_only_it_needs_and_loaded_with_its_members(
    both: Both,
) -> None:
    assert both.ask("six", "z") == [6, 12, 18]
    before = unloaded(both)
    both.client.unload_model("six", unload_dependents=True)
    assert unloaded(both) - before == {"six", "double", "triple"}

    both.client.load_model("six")
    assert both.ask("six", "z") == [6, 12, 18]


@over_either
def test_an_ensemble_without_a_member_says_which(both: Both) -> None:
    both.client.unload_model("triple")

    assert both.index()["six"] == ("UNAVAILABLE", "triple: unloaded")
    said = refusal(lambda: both.ask("six", "z"))
    assert said == "Request for unknown model: 'triple' has no available versions"


def test_a_model_of_the_store_is_loaded_by_name(both: Both) -> None:
    both.client.load_model("spare")
    assert both.ask("spare") == [5, 10, 15]
    both.client.unload_model("spare")
    assert both.index()["spare"] == ("UNAVAILABLE", "unloaded")


def test_an_onnx_file_sent_with_the_load_is_served(both: Both, tmp_path: Path) -> None:
    content = write_scaler(tmp_path / "sent.onnx", factor=7.0).read_bytes()
    files = {"file:3/model.onnx": content}

    both.client.load_model("double", config='{"backend": "onnxruntime"}', files=files)

    assert both.ask("double") == [7, 14, 21]
    versions = both.client.get_model_metadata("double")
    assert list(versions.versions if both.is_grpc else versions["versions"]) == ["3"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"file:1/model.py": b"import os"}, "only .onnx is taken from a caller"),
        ({"file:1/model.pt": b"PK"}, "only .onnx is taken from a caller"),
        ({"file:1/model.pt2": b"PK"}, "only .onnx is taken from a caller"),
        ({"file:1/ops.so": b"\x7fELF"}, "only .onnx is taken from a caller"),
        ({"file:1/model.onnx": b"\xff\xff"}, "no ONNX model"),
        ({"file:1/../../model.onnx": b""}, "the name must be plain"),
        ({"file:../1/model.onnx": b""}, "expected file:<version>/<name>"),
        ({"file:/etc/model.onnx": b""}, "expected file:<version>/<name>"),
    ],
)
def test_a_file_that_could_do_harm_is_refused(
    both: Both, files: dict[str, bytes], said: str
) -> None:
    told = refusal(lambda: both.client.load_model("double", config="{}", files=files))

    assert told.startswith("failed to load 'double', ")
    assert said in told
    assert both.ask("double") == [2, 4, 6]


def test_weights_in_another_file_are_refused(both: Both, tmp_path: Path) -> None:
    import onnx

    row: list[str | int] = ["batch", 3]
    file = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, row)],
        [("y", TensorProto.FLOAT, row)],
        [helper.make_tensor("w", TensorProto.FLOAT, [3], bytes(12), raw=True)],
    )
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w", size_threshold=0)
    files = {"file:1/model.onnx": file.read_bytes()}

    told = refusal(lambda: both.client.load_model("double", config="{}", files=files))

    assert "weights in other files are not taken" in told


def test_what_cannot_be_loaded_says_so_and_changes_nothing(both: Both) -> None:
    too_large = {"max_batch_size": 2, "dynamic_batching": {"preferred_batch_size": [4]}}
    configs = ("{max_batch_size}", '{"sequence_batching": {}}', json.dumps(too_large))
    for config in configs:
        told = refusal(partial(both.client.load_model, "double", config=config))
        assert told.startswith("failed to load 'double', ")
    told = refusal(partial(both.client.load_model, "nobody"))
    assert told == "failed to load 'nobody', failed to poll from model repository"
    assert both.ask("double") == [2, 4, 6]


def test_a_file_name_of_256_characters_fails_to_poll(both: Both) -> None:
    with pytest.raises(InferenceServerException, match="failed to poll from model repository") as e:
        both.client.load_model("double", config="{}", files={"file:" + "a" * 256: b""})

    assert e.value.status() == ("StatusCode.INTERNAL" if both.is_grpc else "500")


@over_either
def test_no_request_is_lost_while_a_model_is_replaced(both: Both, tmp_path: Path) -> None:
    stop = threading.Event()
    answers: list[list[float]] = []
    errors: list[Exception] = []

    def keep_asking() -> None:
        mine = Both(both.module, both.url)
        while not stop.wait(PAUSE_S):
            try:
                answers.append(mine.ask("double"))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    content = write_scaler(tmp_path / "sent.onnx", factor=9.0).read_bytes()
    both.client.load_model("double", config='{"max_batch_size": 16}')
    both.client.load_model("double", config="{}", files={"file:1/model.onnx": content})
    both.client.load_model("double")
    stop.set()
    for thread in threads:
        thread.join()

    assert errors == []
    assert {tuple(answer) for answer in answers} == {(2.0, 4.0, 6.0), (9.0, 18.0, 27.0)}


def eventually(is_so: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if is_so():
            return True
        time.sleep(0.2)
    return False


@over_either
def test_a_killed_controller_comes_back_with_what_was_loaded(both: Both, served: Running) -> None:
    both.client.load_model("double", config='{"max_batch_size": 16}')
    both.client.unload_model("triple")
    both.client.load_model("spare")
    (pid,) = served.pids("ray::Controller")

    os.kill(pid, signal.SIGKILL)

    assert eventually(lambda: served.pids("ray::Controller") not in ([], [pid]))
    assert both.ask("double") == [2, 4, 6]
    both.client.unload_model("spare")  # the new controller answers
    assert both.max_batch_size("double") == 16
    assert both.index()["triple"] == ("UNAVAILABLE", "unloaded")
    assert both.index()["spare"] == ("UNAVAILABLE", "unloaded")


@over_either
def test_a_changed_configuration_leaves_what_was_loaded_and_changes_only_its_own(
    changing: Both, served: Running, folder: Path
) -> None:
    changing.client.load_model("double", config='{"max_batch_size": 16}')
    changing.client.load_model("spare")
    pids = served.pids("variant-double")
    content = yaml.safe_load((folder / "controlled.yaml").read_text())
    size = 4 if changing.is_grpc else 2
    content["applications"][0]["args"]["variants"]["triple"]["batching"] = {"max_batch_size": size}
    (folder / "changed.yaml").write_text(yaml.safe_dump(content))

    program = Path(sys.executable).with_name("serve")
    environment = {
        **os.environ,
        "RAY_DASHBOARD_ADDRESS": served.dashboard(),
        "RAY_AUTH_MODE": "token",
    }
    subprocess.run(
        [program, "deploy", folder / "changed.yaml"],
        check=True,
        capture_output=True,
        env=environment,
    )

    def has_changed() -> bool:
        try:
            found = httpx.get(f"{served.http}/v2/models/triple/config").json()
        except httpx.HTTPError:
            return False  # a door that leaves closes its connections
        return bool(found["max_batch_size"] == size)

    assert eventually(has_changed)
    after = Both(changing.module, changing.url)
    assert after.max_batch_size("double") == 16
    assert after.ask("spare") == [5, 10, 15]
    assert set(served.pids("variant-double")) <= set(pids)
    after.client.close()
