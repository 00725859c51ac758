"""`serve_configs/sharded.yaml` through the real doors: several placements, one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tokenizers import Tokenizer

from cluster.client import Client
from cluster.config.store import ModelStore
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models, pytest.mark.timeout(500)]

RECOVERY_S = 150.0
"""Patience, not a promise: a process that imports PyTorch starts slowly on a busy machine."""
SHARDS = {"smollm2-layer2": 2, "smollm2-pipeline2": 2, "smollm2-tensor3": 3, "lite0-pipeline2": 2}


@pytest.fixture(scope="module")
def prompt(store: ModelStore) -> Any:
    tokenizer = Tokenizer.from_file(str(store.folder("smollm2-135m") / "tokenizer.json"))
    text = "The capital of France is Paris, and the capital of Italy is"
    return np.array([tokenizer.encode(text).ids], np.int64)


def infer(served: Running, model: str, name: str, array: Any, *, grpc: bool = False) -> Any:
    library: Any = over_grpc if grpc else over_http
    datatype = "INT64" if array.dtype == np.int64 else "FP32"
    given = library.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array)
    address = served.grpc if grpc else served.http_address
    options = {} if grpc else {"network_timeout": 120.0, "connection_timeout": 120.0}
    client = library.InferenceServerClient(address, **options)
    try:
        return client.infer(model, [given]).as_numpy("logits")
    finally:
        client.close()


@pytest.mark.parametrize("model", ["smollm2-layer2", "smollm2-pipeline2", "smollm2-tensor3"])
@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_every_placement_answers_as_one_process_does(
    sharded: Running, prompt: Any, model: str, grpc: bool
) -> None:
    wanted = infer(sharded, "smollm2-single", "input_ids", prompt)
    found = infer(sharded, model, "input_ids", prompt, grpc=grpc)

    assert found.shape == (1, prompt.shape[1], 49152)
    assert np.abs(found - wanted).max() < 1e-4
    assert (found.argmax(-1) == wanted.argmax(-1)).all()


def test_a_cut_graph_answers_as_the_whole_one_does(sharded: Running) -> None:
    images = np.random.default_rng(2).standard_normal((4, 3, 224, 224)).astype(np.float32)

    found = infer(sharded, "lite0-pipeline2", "image", images)

    assert np.abs(found - infer(sharded, "lite0-single", "image", images)).max() < 1e-4


def test_the_sdk_generates_the_same_here_and_there(
    sharded: Running, store: ModelStore, prompt: Any
) -> None:
    with Client(store=store.root, device="cpu") as here, Client(sharded.http) as there:
        ids = prompt[0].tolist()

        embedded = here.load_model("smollm2-135m").generate(ids, max_length=5)
        cut = here.shard_model("smollm2-135m", 2).generate(ids, max_length=5)
        served = there.load_model("smollm2-writer2").generate(ids, max_length=5)

    assert len(served) == 5
    assert embedded == cut == served


def test_an_open_placement_is_decided_by_the_planner_which_says_why(sharded: Running) -> None:
    images = np.random.default_rng(3).standard_normal((1, 3, 224, 224)).astype(np.float32)

    found = infer(sharded, "lite0-auto", "image", images)

    assert np.abs(found - infer(sharded, "lite0-single", "image", images)).max() < 1e-4
    assert len(sharded.pids("squadron:lite0-auto:")) == 2
    variants = httpx.get(f"{sharded.http}/admin/v1/variants").json()
    (reason,) = [each["placement"] for each in variants if each["name"] == "lite0-auto"]
    assert "of weights exceed the 16.0 MiB of max_memory_mb" in reason


def test_the_running_cluster_is_a_topology_to_plan_for(sharded: Running) -> None:
    program = Path(sys.executable).with_name("squadron")
    cluster = ["--topology", "ray", "--address", gcs_address(sharded)]
    options = ["--config", "serve_configs/sharded.yaml", "--calls", "200", "--json"]
    done = subprocess.run(
        [program, "plan", *cluster, *options],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert {device["kind"] for device in plan["devices"]} == {"cpu"}
    assert {model["model"] for model in plan["models"]} >= {"smollm2-single", "lite0-pipeline2"}


def gcs_address(served: Running) -> str:
    """Where the Ray of this Squadron is, as its node was told."""
    (pid, *_) = served.pids("raylet/raylet")
    arguments = psutil.Process(pid).cmdline()
    (address,) = [a.partition("=")[2] for a in arguments if a.startswith("--gcs-address=")]
    return address


def test_a_sharded_model_streams_its_tokens(sharded: Running, prompt: Any) -> None:
    ids = prompt
    for _ in range(5):
        best = infer(sharded, "smollm2-single", "input_ids", ids)[0, -1].argmax()
        ids = np.concatenate([ids, [[best]]], axis=1)

    assert written(sharded, prompt, 5) == ids[0, prompt.shape[1] :].tolist()


def test_every_shard_is_a_process_named_after_model_replica_and_rank(sharded: Running) -> None:
    for model, count in SHARDS.items():
        titles = [psutil.Process(pid).cmdline()[0] for pid in sharded.pids(f"squadron:{model}:")]
        assert sorted(title.rpartition(":")[2] for title in titles) == [
            f"shard{rank}" for rank in range(count)
        ]


@pytest.mark.parametrize("ids", [[[49152]], [[-1]]])
def test_a_token_that_is_none_is_refused_and_harms_nobody(
    sharded: Running, prompt: Any, ids: list[list[int]]
) -> None:
    tensor = {"name": "input_ids", "datatype": "INT64", "shape": [1, 1], "data": ids}
    url = f"{sharded.http}/v2/models/smollm2-tensor3/infer"
    answer = httpx.post(url, json={"inputs": [tensor]}, timeout=60)

    assert answer.status_code == 400
    assert "allowed: 0 to 49151" in answer.text
    assert infer(sharded, "smollm2-tensor3", "input_ids", prompt).shape[0] == 1


def test_the_map_shows_every_shard_on_its_node_with_its_layers(sharded: Running) -> None:
    (node,) = httpx.get(f"{sharded.http}/admin/v1/cluster").json()
    shards = [each for each in node["processes"] if each["kind"] == "shard"]

    assert node["is_head"]
    assert {each["pid"] for each in shards} == set(sharded.pids(":shard"))
    for name, count in SHARDS.items():
        own = [each for each in shards if each["variant"] == name]
        (leader,) = [
            each
            for each in node["processes"]
            if each["kind"] == "replica" and each["variant"] == name
        ]
        assert [each["rank"] for each in own] == list(range(count))
        assert {each["replica"] for each in own} == {leader["replica"]}
        assert own[0]["first_layer"] == 0
        assert all(each["weight_bytes"] > 0 for each in own)


def test_a_shard_killed_in_mid_stream_ends_it_with_an_error_and_its_replacement_is_right(
    sharded: Running, prompt: Any
) -> None:
    wanted = written(sharded, prompt, 5)
    assert wanted is not None
    before = set(sharded.pids("squadron:smollm2-writer2:"))
    url = f"{sharded.http}/v2/models/smollm2-writer2/generate_stream"
    body = {"input_ids": prompt[0].tolist(), "max_tokens": 4000}

    events: list[dict[str, Any]] = []
    # Of one read, so that a stream that says nothing more fails here and does not hang.
    with httpx.stream("POST", url, json=body, timeout=90) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data:"):
                continue
            events.append(json.loads(line.removeprefix("data:")))
            if len(events) == 3:
                os.kill(max(before), signal.SIGKILL)

    assert answer.status_code == 200
    assert len(events) < 4000
    assert np.ravel([event["token"] for event in events[:3]]).tolist() == wanted[:3]
    assert "error" in events[-1], events[-1]
    assert all("token" in event for event in events[:-1])

    until_s = time.monotonic() + RECOVERY_S
    while (found := written(sharded, prompt, 5)) is None:
        assert time.monotonic() < until_s, "no replacement"
        time.sleep(0.5)
    assert found == wanted
    now = set(sharded.pids("squadron:smollm2-writer2:"))
    assert len(now) == 2
    assert not now & before


def written(sharded: Running, prompt: Any, count: int) -> list[int] | None:
    """The tokens that follow; None while no replica is there, which is told with Retry-After."""
    url = f"{sharded.http}/v2/models/smollm2-writer2/generate_stream"
    body = {"input_ids": prompt[0].tolist(), "max_tokens": count}
    answer = httpx.post(url, json=body, timeout=120)
    if answer.status_code == 503:
        assert "retry-after" in answer.headers
        return None
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data:")]
    tokens = [json.loads(line.removeprefix("data:"))["token"] for line in lines]
    return [int(token) for token in np.ravel(tokens)]
