"""What a group's shards tell their leader, in the node's metrics."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import prometheus_client.values
import pytest

from actors.sharding.watch import group_watch
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model
from cluster.observability.metrics import NodeSamples, make_metrics, node_samples
from cluster.placement.partition import lay_out
from tests.cluster.engines.sharded.directories import inputs_of, llama, saved
from tests.e2e.sharding.groups import group

pytestmark = pytest.mark.timeout(300)
TWO = {"strategy": "pipeline", "shards": 2, "micro_batches": 2}


def test_shards_tell_what_they_do_and_a_lost_group_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    make_metrics(tmp_path / "metrics")
    card = saved(llama(), tmp_path)
    layout = lay_out(PlacementConfig.model_validate(TWO), layered_model(card, tmp_path))
    given = {name: np.repeat(v.numpy(), 4, axis=0) for name, v in inputs_of("llama").items()}
    lost = threading.Event()

    def read() -> NodeSamples:
        return node_samples(tmp_path / "metrics")

    def until(name: str, least: float) -> NodeSamples:
        """Beats come twice a second."""
        pause = threading.Event()
        while (found := read()).total(name, variant="m") < least:
            pause.wait(0.05)
        return found

    watch = group_watch("m", layout)
    with group(card, tmp_path, watch=watch, on_lost=lambda _: lost.set(), **TWO) as shards:
        for _ in range(3):
            shards.infer(given)
        busy = until("squadron_shard_steps", 12)
        os.kill(shards.pids[1], signal.SIGKILL)
        assert lost.wait(30)
    after = read()

    assert busy.total("squadron_shard_groups", variant="m") == 1
    assert busy.by_label("squadron_shard_steps", "shard", variant="m") == {"0": 6, "1": 6}
    assert set(busy.by_label("squadron_shard_steps", "stage", variant="m")) == {"0", "1"}
    for name in ("busy_seconds", "resident_bytes", "peak_bytes", "weight_bytes"):
        each = busy.by_label(f"squadron_shard_{name}", "shard", variant="m")
        assert min(each["0"], each["1"]) > 0, name
    told = {"role": "shard", "variant": "m"}
    assert busy.total("squadron_processes", **told) == 2
    assert busy.total("squadron_process_cpu_seconds", **told) > 0
    assert busy.total("squadron_shard_groups_lost", variant="m") == 0
    assert after.total("squadron_shard_groups_lost", variant="m") == 1
    assert after.total("squadron_shard_groups", variant="m") == 0
    assert after.total("squadron_shard_resident_bytes", variant="m") == 0
    # What was done stays counted.
    assert after.total("squadron_shard_steps", variant="m") >= 12
