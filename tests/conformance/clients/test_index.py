"""The repository index has as many entries as Triton's model control examples insist on."""

from __future__ import annotations

from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from cluster.config.serve_file import read_serve_file
from tests.conformance.conftest import serving
from tests.e2e.running import Running

EVERY = {
    "simple",
    "simple_dyna_sequence",
    "simple_identity",
    "simple_int8",
    "simple_sequence",
    "simple_string",
    "simple_string_dyna_sequence",
}


@pytest.mark.e2e
def test_the_grpc_configuration_has_eight(triton_models: Running) -> None:
    with grpc_client.InferenceServerClient(triton_models.grpc) as asking:
        models = asking.get_model_repository_index().models

    assert {model.name for model in models} == EVERY | {"repeat_int32"}
    assert len(models) == 8


@pytest.mark.e2e
def test_the_http_configuration_has_seven(root: Path, tmp_path: Path) -> None:
    for server in serving(root, "conformance-http.yaml", tmp_path):
        with http_client.InferenceServerClient(server.http_address) as asking:
            index = asking.get_model_repository_index()
            assert asking.get_server_metadata()["name"] == "triton"

    assert {entry["name"] for entry in index} == EVERY
    assert len(index) == 7


@pytest.mark.slice
@pytest.mark.parametrize(("name", "count"), [("http", 7), ("grpc", 8)])
def test_as_many_are_configured(root: Path, name: str, count: int) -> None:
    _, config = read_serve_file(root / f"serve_configs/conformance-{name}.yaml")

    assert len(config.variants) == count
