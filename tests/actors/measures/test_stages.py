from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from cluster.observability.metrics import node_samples
from tests.actors.tracing.doors import body, traced_door


async def test_the_stages_of_a_batch_are_its_time_in_the_engines_thread(tmp_path: Path) -> None:
    async with traced_door(tmp_path) as door, httpx.AsyncClient(base_url=door.http) as client:
        for _ in range(5):
            assert (await client.post("/v2/models/v/infer", content=body())).status_code == 200
    found = node_samples(tmp_path / "metrics")

    stages = found.by_label("squadron_stage_seconds", "stage", variant="v")
    assert set(stages) == {"merge", "engine", "finish"}
    assert min(stages.values()) > 0
    # One request a batch: what is counted of requests is what batches took.
    whole_us = found.total("nv_inference_compute_infer_duration_us", model="v")
    assert sum(stages.values()) == pytest.approx(whole_us / 1e6, rel=1e-6)
