from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.planning.shard_map import parse_run
from cluster.errors import ConfigError
from cluster.placement.shard_map import read_shard_map


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("layers.0-5", range(6)),
        ("layer_0_to_5", range(6)),
        ("layers.3", range(3, 4)),
        ("layer_3", range(3, 4)),
    ],
)
def test_both_ways_of_writing_a_run_of_layers_mean_the_same(text: str, run: range) -> None:
    assert parse_run(text) == run


@pytest.mark.parametrize("text", ["", "layers", "layers.-1", "layers.1-", "block.0-5", "layers.٣"])
def test_another_form_is_refused_with_the_forms_that_are_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"names no layers; allowed: layers\.0-5") as caught:
        parse_run(text)
    assert caught.value.details["value"] == text


def test_a_run_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ends \(layer 2\) before it begins \(layer 5\)"):
        parse_run("layers.5-2")


def test_a_map_gives_its_runs_in_order() -> None:
    places = [("layers.0-5", "cuda:0"), ("layer_6_to_11", "cuda:1")]
    assert read_shard_map(places, 12) == (range(6), range(6, 12))


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            [("layers.0-5", "cuda:0"), ("layers.7-11", "cuda:1")],
            "'layers.7-11' on cuda:1: layer 6 is on no device",
        ),
        (
            [("layers.0-5", "cuda:0"), ("layers.5-11", "cuda:1")],
            "'layers.5-11' on cuda:1: layer 5 has a device already",
        ),
        (
            [("layers.0-5", "cuda:0"), ("layers.6-12", "cuda:1")],
            "'layers.6-12' on cuda:1: there is no layer 12",
        ),
        ([("layers.0-5", "cuda:0")], "layers 6 to 11 are on no device"),
    ],
)
def test_a_map_that_does_not_fit_names_layer_and_device(
    places: list[tuple[str, str]], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_shard_map(places, 12)
    assert said in caught.value.message


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_every_cut_into_runs_can_be_written_as_a_map(sizes: list[int]) -> None:
    runs, start = [], 0
    for size in sizes:
        runs.append(range(start, start + size))
        start += size
    places = [(f"layers.{run.start}-{run.stop - 1}", "cpu") for run in runs]
    assert read_shard_map(places, start) == tuple(runs)
