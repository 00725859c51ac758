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
    parts = {"merge": "input", "engine": "infer", "finish": "output"}
    for stage, part in parts.items():
        spent_us = found.total(f"nv_inference_compute_{part}_duration_us", model="v")
        assert stages[stage] == pytest.approx(spent_us / 1e6, rel=1e-6), stage
