"""`python -m loadtests.sharding.speed`: what sharding costs and saves, as ratios within one run.

Pairs are measured in turn (A B B A …); a ratio is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore, default_root
from cluster.engines.engine import EngineSetup
from cluster.engines.table import make_engine
from cluster.tensors import Array
from loadtests.sharding.groups import group
from loadtests.sharding.random_llama import write

IN_FLIGHT = 8


def compare(one: Callable[[], None], other: Callable[[], None], pairs: int) -> dict[str, float]:
    """Seconds of each (median) and the first over the second (median of the pairs' ratios)."""
    one()
    other()
    times: tuple[list[float], list[float]] = ([], [])
    ratios = []
    for index in range(pairs):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        found = {which: _seconds((one, other)[which]) for which in order}
        times[0].append(found[0])
        times[1].append(found[1])
        ratios.append(found[0] / found[1])
    return {
        "first_s": round(statistics.median(times[0]), 4),
        "second_s": round(statistics.median(times[1]), 4),
        "ratio": round(statistics.median(ratios), 3),
        "best": round(max(ratios), 3),
    }


def _seconds(run: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


def _rows(count: int, tokens: int) -> Array:
    return np.random.default_rng(0).integers(0, 8000, (count, tokens))


def pipeline_over_layer(
    card: ModelCard, folder: Path, cut: dict[str, str], pairs: int, rows: int, tokens: int
) -> None:
    """The same cut: rows one after the other, and with 8 of them in flight. The seconds of the
    processor say what the ratio would be with nobody else on the cores."""
    ids = _rows(rows, tokens)
    with (
        group(card, folder, strategy="layer", shard_map=cut) as (layer, _),
        group(card, folder, strategy="pipeline", shard_map=cut, micro_batches=rows) as (pipe, _),
    ):

        def one_at_a_time() -> None:
            for row in ids:
                layer.infer({"input_ids": row[None]})

        def in_flight() -> None:
            pipe.infer({"input_ids": ids})

        found = compare(one_at_a_time, in_flight, pairs)
        alone = _processor_s(layer.pids, one_at_a_time)
        abreast = _processor_s(pipe.pids, in_flight)
    told = {
        "what": f"layer / pipeline, 8 in flight, {card.name} (goal 1.7)",
        **found,
        "processor_s": {"layer": alone, "pipeline": abreast},
        "bound": round(sum(alone) / max(*abreast[1:], sum(abreast) / 2), 3),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(told), flush=True)


def _processor_s(pids: tuple[int, ...], run: Callable[[], None]) -> list[float]:
    """Of this process and of each shard's, for one run."""
    processes = [psutil.Process(pid) for pid in (os.getpid(), *pids)]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    run()
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return [round(end - begin, 2) for begin, end in zip(before, after, strict=True)]


def one_shard_over_plain(store: ModelStore, pairs: int, tokens: int) -> None:
    card, folder = store.card("smollm2-135m"), store.folder("smollm2-135m")
    plain = make_engine("torch", EngineSetup(card=card, folder=folder))
    plain.load()
    ids = {"input_ids": _rows(1, tokens)}
    with group(card, folder, strategy="layer", shards=1) as (one, _):
        found = compare(lambda: _drop(one.infer(ids)), lambda: _drop(plain.infer(ids)), pairs)
    print(json.dumps({"what": "one-shard group / plain (goal 1.05)", **found}), flush=True)


def tensor_over_single(folder: Path, pairs: int, tokens: int, layers: int) -> None:
    card = write(folder, num_layers=layers)
    ids = {"input_ids": _rows(1, tokens)}
    with (
        group(card, folder, strategy="layer", shards=1, start_timeout_s=600) as (one, _),
        group(card, folder, strategy="tensor", shards=2, start_timeout_s=600) as (two, _),
    ):
        found = compare(lambda: _drop(one.infer(ids)), lambda: _drop(two.infer(ids)), pairs)
    print(json.dumps({"what": "single / tensor 2, prefill (goal 1.5)", **found}), flush=True)


def _drop(_: object) -> None:
    """An answer that nobody looks at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["pipeline", "llama", "plain", "tensor"])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=4 * IN_FLIGHT)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    store = ModelStore(default_root().resolve())
    if "pipeline" in given.what:
        name = "smollm2-135m"
        cut = {"layers.0-18": "cpu", "layers.19-29": "cpu"}
        pipeline_over_layer(
            store.card(name), store.folder(name), cut, given.pairs, given.rows, given.tokens
        )
    if "llama" in given.what:
        # Its vocabulary is small: the answers of 12 MB a row are out of the picture.
        with tempfile.TemporaryDirectory() as folder:
            card = write(Path(folder), hidden=1024, inner=4096, num_layers=12)
            cut = {"layers.0-5": "cpu", "layers.6-11": "cpu"}
            pipeline_over_layer(card, Path(folder), cut, given.pairs, given.rows, given.tokens)
    if "plain" in given.what:
        one_shard_over_plain(store, given.pairs, given.tokens)
    if "tensor" in given.what:
        with tempfile.TemporaryDirectory() as folder:
            tensor_over_single(Path(folder), given.pairs, given.tokens, given.layers)


if __name__ == "__main__":
    main()
