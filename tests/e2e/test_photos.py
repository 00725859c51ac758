"""Real photos through real clients: HTTP, gRPC and curl."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from cluster.config.store import ModelStore
from cluster.tensors import Array, bytes_array
from tests.e2e.photos import direct_probabilities, foolbox_photos
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]


def ask(prod: Running, door: str, model: str, photos: list[bytes]) -> tuple[Array, Array]:
    """Labels [batch, 5] and scores [batch, 5] as tritonclient sees them."""
    module = http_client if door == "http" else grpc_client
    image = module.InferInput("image", [len(photos)], "BYTES")
    image.set_data_from_numpy(bytes_array(photos, (len(photos),)))
    address = prod.http_address if door == "http" else prod.grpc
    with module.InferenceServerClient(address) as client:
        result = client.infer(model, [image])
    return result.as_numpy("labels"), result.as_numpy("scores")


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_served_scores_equal_onnx_runtimes_own(prod: Running, store: ModelStore, door: str) -> None:
    photos = foolbox_photos(store)
    names = (store.folder("efficientnet-lite0", "") / "labels.txt").read_text().splitlines()
    largest = 0.0
    num_right = 0
    for path, true_class in photos:
        labels, scores = ask(prod, door, "photo-classifier-fp32", [path.read_bytes()])
        direct = direct_probabilities(store, "efficientnet-lite0", path.read_bytes())
        best = np.argsort(-direct, kind="stable")[:5]
        assert [label.decode() for label in labels[0]] == [names[i] for i in best]
        largest = max(largest, float(np.abs(scores[0] - direct[best]).max()))
        num_right += int(best[0]) == true_class

    assert largest < 1e-5
    assert num_right >= 18


def test_a_batch_of_photos_is_answered_photo_by_photo(prod: Running, store: ModelStore) -> None:
    photos = [path.read_bytes() for path, _ in foolbox_photos(store)[:3]]

    together = ask(prod, "http", "photo-classifier-fp32", photos)
    alone = [ask(prod, "http", "photo-classifier-fp32", [photo]) for photo in photos]

    assert together[0].shape == together[1].shape == (3, 5)
    for row, (labels, scores) in enumerate(alone):
        assert together[0][row].tolist() == labels[0].tolist()
        assert np.abs(together[1][row] - scores[0]).max() < 1e-5


def test_the_ensemble_is_the_mean_of_its_members(prod: Running, store: ModelStore) -> None:
    photo = foolbox_photos(store)[0][0].read_bytes()

    _, scores = ask(prod, "grpc", "photo-ensemble", [photo])

    members = [direct_probabilities(store, f"efficientnet-lite{i}", photo) for i in range(3)]
    direct = np.sort(np.mean(members, axis=0))[::-1][:5]
    assert np.abs(direct - scores[0]).max() < 1e-5


def test_curl_with_nothing_but_a_file_prints_labels(prod: Running, store: ModelStore) -> None:
    photo = store.root / ".samples" / "scikit-image" / "chelsea.png"
    command = ["curl", "-s", "-i", "--data-binary", f"@{photo}"]

    printed = subprocess.run(
        [*command, f"{prod.http}/v2/models/photo-classifier/infer"],
        check=True,
        capture_output=True,
    ).stdout.decode()

    head, _, body = printed.partition("\r\n\r\n")
    if head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\r\n\r\n")
    answer = json.loads(body)
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert head.startswith("HTTP/1.1 200")
    assert f"x-squadron-variant: {answer['parameters']['squadron_variant']}" in head
    assert any("cat" in label for label in outputs["labels"]["data"])
    assert outputs["scores"]["shape"] == [1, 5]
    assert outputs["scores"]["data"] == sorted(outputs["scores"]["data"], reverse=True)
