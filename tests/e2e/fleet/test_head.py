"""The head is killed: the doors go on, and what was set while it ran is there when it is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from tests.e2e.fleet.scenarios import needs_pods, scenario

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.models,
    pytest.mark.timeout(900),
    pytest.mark.whole,
    needs_pods,
]


def test_a_head_on_rocksdb_comes_back_with_its_state_and_no_request_is_lost(
    root: Path, store: ModelStore, tmp_path: Path
) -> None:
    words = ("head", "--storage", "rocksdb", "--rate", "20", "--away", "5")
    found = scenario(root, store.root, tmp_path, *words)

    assert found["sent_while_away"] > 0
    assert (found["failed"], found["failures"]) == (0, {})
    assert found["counted_after"] >= found["counted_before"] >= 20
    # Weights, the loaded model and a replaced replica were waited for: they came.
    assert found["replica_replaced_after_s"] > 0
