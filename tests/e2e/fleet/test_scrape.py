"""Prometheus' view of two nodes: every request once, also after a replica was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from tests.e2e.fleet.scenarios import needs_pods, scenario

pytestmark = [pytest.mark.e2e, pytest.mark.models, pytest.mark.timeout(900), needs_pods]


def test_two_nodes_count_every_request_once(root: Path, store: ModelStore, tmp_path: Path) -> None:
    found = scenario(root, store.root, tmp_path, "scrape", "--requests", "200")

    once = {"squadron_requests_total": 200.0, "nv_inference_request_success": 200.0}
    twice = {name: 2 * value for name, value in once.items()}
    assert found["failed"] == 0
    assert (found["counted_before"], found["counted_after_kill"]) == (once, once)
    assert found["counted_after"] == twice
    assert found["on_both_nodes"]
    if found["promtool"] is None:
        pytest.skip("promtool is not here: Debian's package `prometheus` has it")
    assert found["promtool"] == []
