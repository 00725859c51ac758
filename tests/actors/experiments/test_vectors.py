"""OpenAI's routes to embeddings under an experiment: one arm a request, and it is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from actors.extensions.offered import make_offered
from actors.front_door import FrontDoor
from actors.listeners.http_routes import HttpRoutes
from cluster.config.experiment import ExperimentConfig
from cluster.config.server import ServerConfig
from cluster.config.variant import BatchingConfig
from cluster.observability.metrics import make_metrics
from cluster.routing.table import (
    ExperimentRoute,
    RoutingTable,
    VariantFacts,
    VariantRoute,
    arms_of,
)
from cluster.tensors import Signature, TensorSpec
from tests.actors.experiments.test_failures import Failing
from tests.actors.listeners.doors import Computing, Door, body_of

EMBEDDER = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(TensorSpec(name="embedding", datatype="FP32", shape=(-1, 2)),),
)
VECTORS = {"a": [1.0, 0.0], "b": [0.0, 1.0]}


def variant(name: str) -> VariantRoute:
    return VariantRoute(
        name=name,
        deployment=name,
        facts=VariantFacts(
            version="1", platform="", backend="", signature=EMBEDDER, is_batched=True
        ),
        batching=BatchingConfig(max_batch_size=2),
        num_replicas=1,
        is_optional=False,
        state="READY",
    )


def transport(name: str) -> Computing:
    def embed(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"embedding": np.array([VECTORS[name]] * len(inputs["text"]), np.float32)}

    return Computing(embed)


def embedding_door(folder: Path, *, fails: bool = False) -> Door:
    """Two arms with vectors of their own, half of the requests each, at most two texts a call."""
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}})
    route = ExperimentRoute(
        name="e",
        arms=arms_of(config.split),
        sticky_header="x-squadron-user",
        signature=EMBEDDER,
        config=config,
    )
    front = FrontDoor(
        ServerConfig(),
        RoutingTable(version=1, routes={"a": variant("a"), "b": variant("b"), "e": route}),
        make_transport=lambda found: Failing() if fails else transport(found.name),
        metrics=make_metrics(folder / "metrics"),
        draw=random.Random(5).random,
    )
    offered = make_offered(front, folder / "metrics")
    return Door(front=front, offered=offered, routes=HttpRoutes(front, offered, app="test"))


async def test_all_vectors_of_a_request_are_of_the_arm_that_is_told(tmp_path: Path) -> None:
    door, seen = embedding_door(tmp_path), set()
    for _ in range(20):
        asked = {"model": "e", "input": ["one", "two", "three", "four", "five"]}
        reply = await door.ask("POST", "/v1/embeddings", asked)
        headers = dict(reply.headers)
        found = [each["embedding"] for each in orjson.loads(body_of(reply))["data"]]
        assert reply.status == 200
        assert found == [VECTORS[headers["x-squadron-variant"]]] * 5
        assert headers["x-request-id"]
        seen.add(headers["x-squadron-variant"])
    (tallied,) = door.front.experiments.collect()

    assert seen == {"a", "b"}
    # Three calls each, of one caller: they say nothing of how the traffic is drawn.
    assert sum(counts.requests for counts in tallied.arms.values()) == 60
    assert sum(counts.drawn for counts in tallied.arms.values()) == 0
    assert sum(len(digests) for digests in tallied.callers.values()) == 20


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/embeddings", {"input": "one"}),
        ("/score", {"text_1": "one", "text_2": ["two", "three"]}),
        ("/rerank", {"query": "one", "documents": ["two", "three"]}),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
async def test_every_answer_tells_the_arm_and_the_id(
    tmp_path: Path, path: str, asked: dict[str, Any], fails: bool
) -> None:
    door = embedding_door(tmp_path, fails=fails)

    headers = {"x_request_id": "mine", "x_squadron_user": "u1"}
    reply = await door.ask("POST", path, {"model": "e", **asked}, **headers)

    assert reply.status == (500 if fails else 200)
    told = dict(reply.headers)
    assert told["x-squadron-variant"] in VECTORS
    assert told["x-request-id"] == "mine"
    if fails:
        assert orjson.loads(body_of(reply))["error"]["message"] == "it broke"
