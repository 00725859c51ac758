"""Every combiner on the real models, against direct computation; members that die under load."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore, new_version, seal
from cluster.tensors import Array, bytes_array
from loadtests.soak import soak
from tests.e2e.photos import direct_probabilities, foolbox_photos
from tests.e2e.running import Running, running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

MEMBERS = {
    "lite0": "efficientnet-lite0",
    "int8": "efficientnet-lite0-int8",
    "lite1": "efficientnet-lite1",
}
WEIGHTS = [3.0, 1.0, 2.0]
CODE = """
import numpy as np


class Loudest:
    def load(self, context):
        pass

    def infer(self, inputs):
        return {"best": np.nanmax([inputs["p"], inputs["q"], inputs["r"]], axis=0)}
"""


def graph(**combine: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"model": name, "outputs": {"probabilities": f"p_{name}"}} for name in MEMBERS
    ]
    steps.append({"inputs": [f"p_{name}" for name in MEMBERS], "output": "combined", **combine})
    return {"inputs": ["image"], "outputs": ["combined"], "steps": steps}


def ensembles() -> dict[str, Any]:
    quorum = graph(combine="mean", quorum=2, wait_ms=200)
    return {
        "mean": graph(combine="mean", weights=WEIGHTS),
        "logit-mean": graph(combine="logit_mean", weights=WEIGHTS),
        "soft-vote": graph(combine="soft_vote"),
        "hard-vote": graph(combine="hard_vote"),
        "stacked": graph(combine="stacking", model="photo-stack"),
        "code": graph(combine="code", model="loudest"),
        "photo-quorum": quorum,
        "outer": {
            "inputs": ["image"],
            "outputs": ["labels", "scores"],
            "steps": [
                {"model": "mean", "outputs": {"combined": "inner"}},
                {"top_k": 5, "input": "inner", "labels_of": "lite0"},
            ],
        },
        "opinion": {
            "inputs": ["text"],
            "outputs": ["score"],
            "steps": [
                {"model": "embedder", "outputs": {"embedding": "embedding"}},
                {"model": "head", "outputs": {"score": "score"}},
            ],
        },
    }


def add_code(root: Path) -> None:
    vector = {"datatype": "FP32", "shape": [-1, 1000]}
    card = {
        "name": "loudest",
        "format": "python",
        "artefact": "loudest.py",
        "python_class": "loudest.py:Loudest",
        "signature": {
            "inputs": [{"name": name, **vector} for name in "pqr"],
            "outputs": [{"name": "best", **vector}],
        },
    }
    with new_version(root, "loudest", "1") as folder:
        (folder / "loudest.py").write_text(CODE)
        seal(folder, ModelCard.model_validate(card))


def write_config(folder: Path) -> Path:
    variants: dict[str, Any] = {name: {"source": source} for name, source in MEMBERS.items()}
    variants["lite0"]["replicas"] = 2
    variants |= {
        "photo-stack": {"source": "photo-stack"},
        "loudest": {"source": "loudest"},
        "embedder": {"source": "all-minilm-l6-v2"},
        "head": {"source": "sentiment-head"},
    }
    args = {
        "variants": variants,
        "ensembles": ensembles(),
        "experiments": {"mixed": {"split": {"lite0": 0, "outer": 1}}},
    }
    application = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": "actors.app:build",
        "args": args,
    }
    file = folder / "ensembles.yaml"
    file.write_text(
        yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [application]})
    )
    return file


@pytest.fixture(scope="module")
def started(store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ensembles")
    own = folder / "models"
    own.mkdir()
    for path in store.root.iterdir():
        (own / path.name).symlink_to(path)
    add_code(own)
    file = write_config(folder)
    rows = folder / "rows.csv"
    with rows.open("w", newline="") as written:
        writer = csv.writer(written)
        writer.writerow(["image", "label"])
        writer.writerows([f"@{p}", str(c)] for p, c in foolbox_photos(store))
    command = ["ensemble", "fit", str(file), "stacked", "--data", str(rows), "--store", str(own)]
    result = CliRunner().invoke(app, [*command, "--inverse-l2", "100"])
    assert result.exit_code == 0, result.output
    with running(file, folder, store=own) as found:
        found.ready["store"] = str(own)
        yield found


def ask(started: Running, door: str, model: str, photos: list[bytes], output: str) -> Array:
    module = http_client if door == "http" else grpc_client
    image = module.InferInput("image", [len(photos)], "BYTES")
    image.set_data_from_numpy(bytes_array(photos, (len(photos),)))
    address = started.http_address if door == "http" else started.grpc
    with module.InferenceServerClient(address) as client:
        found: Array = client.infer(model, [image]).as_numpy(output)
    return found


def directly(kind: str, members: list[Array], own: Path) -> Array:
    """What a combiner is to give, from its definition."""
    weights = np.array(WEIGHTS) / np.sum(WEIGHTS)
    match kind:
        case "mean":
            return np.tensordot(weights, members, 1)
        case "logit-mean":
            product = np.prod([m**w for m, w in zip(members, weights, strict=True)], axis=0)
            return product / product.sum()
        case "soft-vote" | "photo-quorum":
            return np.mean(members, axis=0)
        case "hard-vote":
            votes = np.zeros(1000)
            for member in members:
                votes[member.argmax()] += 1 / 3
            return votes
        case "code":
            return np.max(members, axis=0)
    path = own / "photo-stack" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [f"p_{name}" for name in MEMBERS]
    given = {n: m[None].astype(np.float32) for n, m in zip(names, members, strict=True)}
    return np.asarray(session.run(None, given)[0][0])


@pytest.mark.parametrize("door", ["http", "grpc"])
@pytest.mark.parametrize(
    "kind", ["mean", "logit-mean", "soft-vote", "hard-vote", "stacked", "code", "photo-quorum"]
)
def test_a_combiner_equals_direct_computation(
    started: Running, store: ModelStore, door: str, kind: str
) -> None:
    largest = 0.0
    for path, _ in foolbox_photos(store)[:4]:
        photo = path.read_bytes()
        members = [direct_probabilities(store, source, photo) for source in MEMBERS.values()]
        (found,) = ask(started, door, kind, [photo], "combined")
        wanted = directly(kind, members, Path(started.ready["store"]))
        largest = max(largest, float(np.abs(found - wanted).max()))

    assert largest < 1e-6


def test_an_ensemble_is_a_member_of_another_and_an_arm_of_an_experiment(
    started: Running, store: ModelStore
) -> None:
    photo = foolbox_photos(store)[0][0].read_bytes()
    (inner,) = ask(started, "http", "mean", [photo], "combined")

    for model in ("outer", "mixed"):
        (scores,) = ask(started, "http", model, [photo], "scores")
        np.testing.assert_array_equal(scores, np.sort(inner)[::-1][:5])


def test_a_sequence_of_models_equals_direct_computation(
    started: Running, store: ModelStore
) -> None:
    from cluster.optimization.embed import embed

    text = "what a lovely film"
    item = http_client.InferInput("text", [1], "BYTES")
    item.set_data_from_numpy(bytes_array([text.encode()], (1,)))
    with http_client.InferenceServerClient(started.http_address) as client:
        (score,) = client.infer("opinion", [item]).as_numpy("score")

    folder = store.folder("all-minilm-l6-v2")
    vector = embed(store.card("all-minilm-l6-v2"), folder, [text], threads=1)
    session = onnxruntime.InferenceSession(store.folder("sentiment-head") / "model.onnx")
    direct = session.run(None, {"embedding": vector})[0].item()
    assert abs(score - direct) < 1e-6


def test_a_member_killed_under_load_fails_no_request_of_a_quorum(
    started: Running, store: ModelStore
) -> None:
    photo = (store.root / ".samples" / "scikit-image" / "chelsea.png").read_bytes()

    async def run() -> dict[int, int]:
        load = asyncio.create_task(
            soak(started.http, "photo-quorum", num_requests=300, concurrency=6, photo=photo)
        )
        while not load.done():
            await asyncio.sleep(0.5)
            for pid in started.replica_pids("lite1"):
                os.kill(pid, signal.SIGKILL)
        return (await load).statuses

    assert asyncio.run(run()) == {200: 300}
