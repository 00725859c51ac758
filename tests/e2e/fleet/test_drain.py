"""A worker's pod is deleted under load: with our manifests nothing is lost."""

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


def test_with_our_manifests_no_request_is_lost_and_the_pod_ends_by_itself(
    root: Path, store: ModelStore, tmp_path: Path
) -> None:
    words = ("drain", "--requests", "1200", "--rate", "20")
    found = scenario(root, store.root, tmp_path, *words)

    assert (found["requests"], found["failed"], found["failures"]) == (1200, 0, {})
    assert found["answered_by_deleted"] > 0
    assert found["sent_after_its_end"] > 0
    assert not found["was_killed"]


def test_with_the_hook_of_upstream_s_samples_requests_are_lost(
    root: Path, store: ModelStore, tmp_path: Path
) -> None:
    """So the test above is one that can fail."""
    words = ("drain", "--hook", "ray-stop", "--requests", "600", "--rate", "40")
    found = scenario(root, store.root, tmp_path, *words)

    assert found["requests"] == 600
    assert found["failed"] > 0
