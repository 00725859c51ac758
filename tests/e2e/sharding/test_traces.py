"""Spans of the shards below the engine's, each from the shard's own process."""

from __future__ import annotations

import json
import re
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import yaml

from actors.tracing.engine_span import ENGINE_SPAN
from cluster.config.observability.tracing import TracingConfig
from cluster.config.store import ModelStore
from tests.actors.tracing.collector import Collector, Seen, grpc_collector
from tests.cluster.engines.sharded.directories import inputs_of, llama, saved
from tests.cluster.kubernetes.manifests import tailed
from tests.e2e.running import running
from tests.e2e.sharding.groups import group

pytestmark = pytest.mark.timeout(500)
TRACE, ENGINE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LAYERS, RANK, STAGE = (f"squadron.shard.{name}" for name in ("layers", "rank", "stage"))


@pytest.mark.parametrize(
    ("placement", "num_spans"),
    [
        ({"strategy": "pipeline", "shards": 2, "micro_batches": 2}, 4),
        pytest.param(
            {"strategy": "pipeline", "shards": 4, "tensor": 2, "micro_batches": 1},
            4,
            marks=pytest.mark.whole,
        ),
    ],
    ids=str,
)
def test_every_micro_batch_is_a_span_of_every_shard(
    placement: dict[str, Any], num_spans: int, tmp_path: Path
) -> None:
    given = {name: np.repeat(v.numpy(), 2, axis=0) for name, v in inputs_of("llama").items()}
    with grpc_collector() as collector:
        tracing = TracingConfig(endpoint=collector.endpoint, export_every_s=0.05)
        with group(saved(llama(), tmp_path), tmp_path, tracing=tracing, **placement) as shards:
            shards.infer(given)
            token = ENGINE_SPAN.set(f"00-{TRACE}-{ENGINE}-01 vendor=1")
            shards.infer(given)
            ENGINE_SPAN.reset(token)
            spans = collector.named("shard", num_spans)

    assert len(spans) == num_spans  # none of the first one's, which is not sampled
    assert {(span.trace, span.parent, span.state) for span in spans} == {
        (TRACE, ENGINE, "vendor=1")
    }
    ranks = sorted(span.attributes[RANK] for span in spans)
    assert ranks == sorted(list(range(placement["shards"])) * (4 // placement["shards"]))


@pytest.mark.e2e
@pytest.mark.models
@pytest.mark.whole
def test_a_pipeline_of_the_example_is_traced_from_the_door_to_its_shards(
    root: Path, store: ModelStore, tmp_path: Path
) -> None:
    content = yaml.safe_load((root / "serve_configs/sharded.yaml").read_text())
    args = content["applications"][0]["args"]
    args["variants"] = {"smollm2-pipeline2": args["variants"]["smollm2-pipeline2"]}
    with grpc_collector() as collector:
        args["server"]["tracing"] = {
            "endpoint": collector.endpoint,
            "sample_ratio": 0,
            "export_every_s": 0.2,
        }
        args["server"]["logging"] = {"format": "json", "access_log": True}
        file = tmp_path / "sharded.yaml"
        file.write_text(yaml.safe_dump(content))
        (tmp_path / "run").mkdir()
        with running(file, tmp_path / "run", store=store.root) as served:
            _infer(served.http_address, {})
            _infer(served.http_address, {"traceparent": f"00-{TRACE}-{ENGINE}-01"})
            shards = collector.named("shard", 2)
            (root_span,) = collector.named("infer")
        (engine,), (batch,) = collector.named("engine"), collector.named("batch")

    _check_lines((tmp_path / "run/serve.stderr").read_text())
    assert {span.trace for span in collector.spans} == {TRACE}
    assert (root_span.parent, batch.parent, engine.parent) == (
        ENGINE,
        root_span.span,
        batch.span,
    )
    assert {span.parent for span in shards} == {engine.span}
    assert [(s.attributes[STAGE], s.role) for s in _in_order(shards)] == [
        (0, "shard"),
        (1, "shard"),
    ]
    assert all(engine.began_ns <= span.began_ns <= engine.ended_ns for span in shards)
    _show(collector)


def _check_lines(text: str) -> None:
    """Every process of the server has told something as JSON, and the door its two requests."""
    starts = [match.start() for match in re.finditer(r'\{"time":', text)]
    # Ray writes names before lines, and behind them how often it has seen their like.
    lines = [json.JSONDecoder().raw_decode(text[start:])[0] for start in starts]
    assert {line["role"] for line in lines} == {"door", "controller", "replica", "shard"}
    access = [line for line in lines if line["logger"] == "squadron.access_log"]
    of_infer = [line for line in access if line["path"].endswith("/infer")]
    assert [(line["model"], line["status"]) for line in of_infer] == [
        ("smollm2-pipeline2", 200)
    ] * 2
    assert [line["trace_id"] for line in of_infer] == ["", TRACE]
    _check_sidecar({line["pid"]: line["role"] for line in lines})


def _check_sidecar(roles: dict[int, str]) -> None:
    """The files that the sidecar of `k8s/components/logging` reads hold every process's lines."""
    for pid, role in roles.items():
        files = [file for path in tailed("process") for file in glob(path) if f"-{pid}." in file]
        told = "".join(Path(file).read_text() for file in files)
        assert f'"role":"{role}"' in told, (pid, role, files)


def _infer(address: str, headers: dict[str, str]) -> None:
    with triton.InferenceServerClient(address) as client:
        ids = triton.InferInput("input_ids", [1, 3], "INT64")
        ids.set_data_from_numpy(np.array([[1, 2, 3]], np.int64))
        client.infer("smollm2-pipeline2", [ids], headers=headers)


def _in_order(spans: list[Seen]) -> list[Seen]:
    return sorted(spans, key=lambda span: span.began_ns)


def _show(collector: Collector) -> None:
    """In the output of `pytest -s`."""
    first_ns = min(span.began_ns for span in collector.spans)
    for span in _in_order(collector.spans):
        begins, takes = span.began_ns - first_ns, span.ended_ns - span.began_ns
        layers = span.attributes.get(LAYERS, "")
        print(f"{begins / 1e6:9.2f} ms {takes / 1e6:9.2f} ms  {span.role:8} {span.name} {layers}")
