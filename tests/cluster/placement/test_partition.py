from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.partition import MIB, LayeredModel, cut_layers, lay_out, run_bytes


def model(num_layers: int = 6, **given: Any) -> LayeredModel:
    values: dict[str, Any] = {
        "num_layers": num_layers,
        "layer_bytes": (10 * MIB,) * num_layers,
        "layer_cost": (1.0,) * num_layers,
        "splits": (("attention heads", 9), ("key-value heads", 3)),
    }
    return LayeredModel(**(values | given))


def config(**given: Any) -> PlacementConfig:
    return PlacementConfig.model_validate(given)


def test_a_pipeline_is_cut_by_work_and_layers_by_bytes() -> None:
    told = model(embedding_bytes=40 * MIB, head_cost=2.0)

    pipeline = lay_out(config(strategy="pipeline", shards=2), told)
    layer = lay_out(config(strategy="layer", shards=2), told)

    assert [shard.layers for shard in pipeline.shards] == [range(4), range(4, 6)]
    assert [shard.layers for shard in layer.shards] == [range(1), range(1, 6)]
    assert (pipeline.micro_batches, layer.micro_batches) == (8, 1)


def test_tensor_slices_of_pipeline_stages_are_numbered_stage_by_stage() -> None:
    layout = lay_out(config(strategy="pipeline", shards=6, tensor=3), model())

    assert [(s.rank, s.stage, s.tensor_rank) for s in layout.shards] == [
        (0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 1), (5, 1, 2)
    ]  # fmt: skip
    assert [s.has_embedding for s in layout.shards] == [True] * 3 + [False] * 3
    assert [s.has_head for s in layout.shards] == [False] * 3 + [True] * 3


def test_a_degree_that_does_not_divide_the_heads_names_them_the_layers_and_the_device() -> None:
    with pytest.raises(ConfigError) as caught:
        lay_out(config(strategy="tensor", shards=2, devices=["cuda:0", "cuda:1"]), model())
    assert caught.value.message == (
        "tensor degree 2 does not divide the 9 attention heads of layers 0 to 5 on cuda:0, "
        "cuda:1; allowed: 1, 3"
    )


def test_a_map_may_name_devices_and_labels_of_nodes() -> None:
    told = config(
        strategy="pipeline",
        shard_map={
            "layers.0-3": "cuda:0",
            "layer_4_to_5": {"device": "cuda:1", "labels": {"zone": "b"}},
        },
    )
    layout = lay_out(told, model())

    assert [(s.layers, s.device, s.labels) for s in layout.shards] == [
        (range(4), "cuda:0", {}),
        (range(4, 6), "cuda:1", {"zone": "b"}),
    ]


def test_too_little_memory_names_layer_and_device() -> None:
    with pytest.raises(ConfigError) as caught:
        lay_out(config(strategy="layer", shards=2, max_memory_mb=15), model())
    assert "layer 0 on cpu (shard 0): needs 20 MiB with the next layer" in caught.value.message


def test_a_cap_bounds_a_graphs_stage_as_a_whole() -> None:
    graph = model(can_be_streamed=False, splits=(), can_be_split=False)

    with pytest.raises(ConfigError) as caught:
        lay_out(config(strategy="layer", shards=2, max_memory_mb=25), graph)

    assert caught.value.message == (
        "layers 0 to 2 on cpu (shard 0): hold 30.0 MiB, all of them at once: a graph's layers are "
        "not brought in for their turn; max_memory_mb is 25"
    )
    assert caught.value.details["key"] == "placement.max_memory_mb"
    assert len(lay_out(config(strategy="layer", shards=3, max_memory_mb=25), graph).shards) == 3
    assert len(lay_out(config(strategy="layer", shards=2, max_memory_mb=25), model()).shards) == 2


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="7 stages need as many layers"):
        lay_out(config(strategy="layer", shards=7), model())


def test_auto_takes_the_fewest_shards_that_fit() -> None:
    layout = lay_out(config(strategy="auto", max_memory_mb=25), model())

    assert layout.num_stages == 3
    assert layout.reason == "auto: 3 stages hold at most 20 MiB each"


def test_auto_says_which_layer_is_too_large_for_any_cut() -> None:
    told = model(layer_bytes=(10 * MIB, 10 * MIB, 90 * MIB, 10 * MIB, 10 * MIB, 10 * MIB))
    with pytest.raises(ConfigError, match="layer 2 alone takes 90 MiB; max_memory_mb is 25"):
        lay_out(config(strategy="auto", max_memory_mb=25), told)


def test_auto_with_fewer_devices_than_shards_names_them() -> None:
    with pytest.raises(ConfigError) as caught:
        lay_out(config(strategy="auto", devices=["cpu"], max_memory_mb=25), model())

    assert caught.value.details["key"] == "placement.devices"
    assert caught.value.message == (
        "placement.devices names 1 (cpu); 3 shards need one each (auto: 3 stages hold at most "
        "20 MiB each)"
    )


def test_auto_takes_the_first_of_more_devices_than_it_needs() -> None:
    devices = [f"cuda:{index}" for index in range(4)]
    layout = lay_out(config(strategy="auto", devices=devices, max_memory_mb=25), model())

    assert [shard.device for shard in layout.shards] == ["cuda:0", "cuda:1", "cuda:2"]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.data())
def test_no_other_cut_has_a_lighter_heaviest_stage(sizes: list[int], data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, len(sizes)))
    told = model(len(sizes), layer_bytes=tuple(sizes), layer_cost=())

    runs = cut_layers(told, stages, by_cost=False)

    assert [n for run in runs for n in run] == list(range(len(sizes)))
    assert all(runs)
    found = max(run_bytes(told, run) for run in runs)
    for cuts in itertools.combinations(range(1, len(sizes)), stages - 1):
        bounds = [0, *cuts, len(sizes)]
        other = max(sum(sizes[a:b]) for a, b in itertools.pairwise(bounds))
        assert found <= other


def test_beside_one_heavy_layer_the_others_are_shared_out_evenly() -> None:
    told = model(7, layer_bytes=(60, 10, 10, 10, 10, 10, 10))

    assert cut_layers(told, 3, by_cost=False) == (range(1), range(1, 4), range(4, 7))


def test_the_stages_of_a_graph_keep_to_the_cap_where_the_quickest_cut_would_not() -> None:
    """By work alone the first layer would be apart; what is heavy is at the end."""
    graph = LayeredModel(
        num_layers=4,
        layer_bytes=(MIB, 2 * MIB, 5 * MIB, 6 * MIB),
        layer_cost=(9.0, 3.0, 3.0, 3.0),
        can_be_split=False,
        can_be_streamed=False,
    )

    def runs(**more: float) -> list[range]:
        told = {"strategy": "pipeline", "shards": 2, **more}
        layout = lay_out(PlacementConfig.model_validate(told), graph)
        return [shard.layers for shard in layout.shards]

    assert runs() == [range(1), range(1, 4)]
    assert runs(max_memory_mb=11.5) == [range(2), range(2, 4)]
    with pytest.raises(ConfigError, match=r"max_memory_mb is 5"):
        runs(max_memory_mb=5)
