"""One running Squadron for all files of this folder, ended with the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.config.store import ModelStore
from tests.e2e.running import Running, running


@pytest.fixture(scope="package")
def sharded(
    root: Path, store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The example as it is; beside it a pipeline that generates, a placement left open, and two
    that lose shards: `only` with one replica, `pair` with two."""
    content = yaml.safe_load((root / "serve_configs/sharded.yaml").read_text())
    variants = content["applications"][0]["args"]["variants"]
    # Ray reserves little for them: the others take nearly all of two cores.
    resources = {"num_cpus": 0.01}
    told = variants["smollm2-pipeline2"]
    variants["smollm2-writer2"] = {
        **told,
        "options": {"task": "generate"},
        "placement": {**told["placement"], "num_cpus": 0.01},
        "resources": resources,
    }
    left_open = {"strategy": "auto", "max_memory_mb": 16, "num_cpus": 0.01}
    whole = variants["lite0-single"]
    variants["lite0-auto"] = {**whole, "placement": left_open, "resources": resources}
    cut = variants["lite0-pipeline2"]
    # Long enough for a busy machine: a healthy shard that is late ends its group as well.
    patient = {**cut["placement"], "heartbeat_timeout_s": 6, "num_cpus": 0.01}
    variants["only"] = {**cut, "placement": patient, "resources": resources}
    variants["pair"] = {**variants["only"], "replicas": 2}
    folder = tmp_path_factory.mktemp("doors")
    (folder / "run").mkdir()
    file = folder / "sharded.yaml"
    file.write_text(yaml.safe_dump(content))
    with running(file, folder / "run", store=store.root) as started:
        yield started
