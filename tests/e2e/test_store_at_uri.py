"""Squadron served from an S3 bucket, as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.config.storage.location import StoreUri, parse_location
from cluster.config.store import ModelStore
from cluster.optimization.add import add_model
from cluster.optimization.remote.mirror import publish
from tests.e2e.running import running
from tests.s3_server import SECRET, needs_s3, s3_server
from tests.triton_repository import write_scaler

pytestmark = [pytest.mark.e2e, needs_s3]

URI = "s3://served/models"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SQUADRON_MODEL_CACHE", str(tmp_path / "cache"))
    with s3_server("served"):
        store = ModelStore(tmp_path / "local")
        add_model(write_scaler(tmp_path / "triple.onnx", factor=3.0), store, "triple")
        uri = parse_location(URI)
        assert isinstance(uri, StoreUri)
        publish(store, uri, "triple")
        yield


def test_a_model_in_a_bucket_is_served(bucket: None, root: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    args = content["applications"][0]["args"]
    args["store"] = {"path": URI}
    args["variants"] = {
        "own-process": {"source": "triple", "colocate": "never"},
        "in-the-door": {"source": "triple", "colocate": "always"},
    }
    file = tmp_path / "source" / "bucket.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(content))
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}

    with running(file, tmp_path) as started:
        for model in args["variants"]:
            answer = httpx.post(f"{started.http}/v2/models/{model}/infer", json=body).json()
            assert answer["outputs"][0]["data"] == [3, 6, 9]

    assert SECRET not in (tmp_path / "serve.stderr").read_text()
