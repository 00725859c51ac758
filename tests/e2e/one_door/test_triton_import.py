"""A Triton model repository, imported by the command line and served for real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.e2e.running import Running
from tests.stateful_models import CARDS, FAR

pytestmark = pytest.mark.e2e

BESIDE = {*CARDS, *FAR, "kept", "twice"}
"""What the server has beside the imported repository."""


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Running) -> Iterator[tuple[Any, Any]]:
    module = {"http": http_client, "grpc": grpc_client}[request.param]
    url = served.http_address if request.param == "http" else served.grpc
    with module.InferenceServerClient(url) as connected:
        yield module, connected


def ask(client: tuple[Any, Any], model: str, inputs: dict[str, np.ndarray], **more: Any) -> Any:
    module, connected = client
    names = {"int32": "INT32", "float32": "FP32"}
    tensors = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), names[array.dtype.name])
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return connected.infer(model, tensors, **more)


X = np.array([[1, 2, 3], [9, 4, 5]], np.float32)


def test_every_model_answers_as_its_graph_says(client: tuple[Any, Any]) -> None:
    a = np.arange(32, dtype=np.int32).reshape(2, 16)
    answer = ask(client, "simple", {"INPUT0": a, "INPUT1": a + 1}, priority=1)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), 2 * a + 1)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), np.full_like(a, -1))

    for model, factor in (("scaler", 2), ("bare", 10), ("intel", 3)):
        np.testing.assert_array_equal(ask(client, model, {"x": X}).as_numpy("y"), factor * X)


def test_rows_of_any_length_are_added_up(client: tuple[Any, Any]) -> None:
    for length in (1, 5, 3):
        x = np.ones((2, length), np.float32)
        answer = ask(client, "sums", {"x": x}).as_numpy("sum")
        np.testing.assert_array_equal(answer, [[length], [length]])


def test_each_version_is_reached_under_the_one_name(client: tuple[Any, Any]) -> None:
    _, connected = client
    for version, factor in (("1", 1), ("2", 2), ("", 2)):
        answer = ask(client, "scaler", {"x": X}, model_version=version)
        np.testing.assert_array_equal(answer.as_numpy("y"), factor * X)
        said = answer.get_response()
        found = said["model_version"] if isinstance(said, dict) else said.model_version
        assert found == (version or "2")
        assert connected.is_model_ready("scaler", version)
    with pytest.raises(InferenceServerException, match="version 3 is not found"):
        ask(client, "scaler", {"x": X}, model_version="3")


def test_the_index_metadata_and_statistics_list_the_versions(served: Running) -> None:
    with http_client.InferenceServerClient(served.http_address) as client:
        x = http_client.InferInput("x", [2, 3], "FP32")
        x.set_data_from_numpy(X)
        before = counts(client)
        client.infer("scaler", [x], model_version="1")

        found = client.get_model_repository_index()
        index = [(each["name"], each["version"]) for each in found if each["name"] not in BESIDE]
        assert index == [
            ("bare", "1"), ("intel", "1"), ("picker", "1"), ("pipeline", "1"),
            ("scaler", "1"), ("scaler", "2"), ("simple", "1"), ("sums", "1"),
        ]  # fmt: skip
        assert {each["name"] for each in found} == {name for name, _ in index} | BESIDE
        assert client.get_model_metadata("scaler")["versions"] == ["1", "2"]
        assert client.get_model_metadata("scaler", "1")["versions"] == ["1", "2"]
        policy = client.get_model_config("scaler")["version_policy"]
        assert policy == {"specific": {"versions": [1, 2]}}
        assert counts(client) == [before[0] + 1, before[1]]
        assert len(client.get_inference_statistics("scaler", "1")["model_stats"]) == 1


def counts(client: http_client.InferenceServerClient) -> list[int]:
    """Batches that the versions 1 and 2 of `scaler` have run."""
    found = client.get_inference_statistics("scaler")["model_stats"]
    assert [(each["name"], each["version"]) for each in found] == [("scaler", "1"), ("scaler", "2")]
    return [each["execution_count"] for each in found]


def test_the_ensemble_runs_its_members(client: tuple[Any, Any]) -> None:
    answer = ask(client, "pipeline", {"raw": X})

    np.testing.assert_array_equal(answer.as_numpy("picked"), 2 * X)


def test_classification_names_the_classes_of_the_label_file(client: tuple[Any, Any]) -> None:
    module, _ = client
    wanted = [module.InferRequestedOutput("scores", class_count=1)]

    answer = ask(client, "picker", {"x": X}, outputs=wanted)

    said = [item.decode().split(":")[1:] for item in answer.as_numpy("scores").ravel()]
    assert said == [["2", "blue"], ["0", "red"]]


def test_the_configuration_says_what_was_imported(served: Running) -> None:
    with http_client.InferenceServerClient(served.http_address) as client:
        config = client.get_model_config("simple")

    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["instance_group"][0]["count"] == 2
    assert [each["dims"] for each in config["input"]] == [[16], [16]]
