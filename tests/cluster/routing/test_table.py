from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.routing.table import (
    EnsembleRoute,
    ExperimentRoute,
    RoutingTable,
    VariantFacts,
    VariantRoute,
    build_table,
    next_version,
)
from cluster.tensors import Signature, TensorSpec

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
CARD = {
    "name": "m",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}


def config(**changes: Any) -> SquadronConfig:
    content: dict[str, Any] = {
        "variants": {"a": {"card": CARD}, "b": {"card": CARD, "optional": True}},
        "experiments": {"e": {"split": {"a": 9, "b": 1}}},
        "ensembles": {
            "outer": {
                "inputs": ["x"],
                "outputs": ["y"],
                "steps": [{"model": "inner", "outputs": {"z": "y"}}],
            },
            "inner": {
                "inputs": ["x"],
                "outputs": ["z"],
                "steps": [{"model": "e", "outputs": {"y": "z"}}],
            },
        },
    }
    return SquadronConfig.model_validate(content | changes)


def facts(unavailable: str = "") -> VariantFacts:
    return VariantFacts(
        version="1",
        platform="fake",
        backend="fake",
        signature=Signature(
            inputs=(X,), outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),)
        ),
        is_batched=True,
        unavailable=unavailable,
    )


def table(b_unavailable: str = "") -> RoutingTable:
    return build_table(config(), {"a": facts(), "b": facts(b_unavailable)})


def test_ensembles_of_ensembles_and_experiments_are_resolved_whatever_their_order() -> None:
    made = table()

    assert [variant.name for variant in made.variants_of("outer")] == ["a", "b"]


def test_a_required_variant_that_loads_keeps_the_server_from_being_ready() -> None:
    made = table()

    assert made.not_ready() == ("a is LOADING: waiting for its first replica",)
    assert made.with_states({"a": ("READY", "")}, version=2).not_ready() == ()


def test_an_optional_variant_is_listed_with_its_reason_and_holds_nothing_up() -> None:
    made = table(b_unavailable="engine x is not installed").with_states(
        {"a": ("READY", "")}, version=2
    )

    assert made.not_ready() == ()
    assert made.state_of("b") == ("UNAVAILABLE", "engine x is not installed")
    assert made.state_of("e") == ("UNAVAILABLE", "b: engine x is not installed")


def test_new_states_make_a_new_table_and_leave_the_old_one() -> None:
    old = table()

    new = old.with_states({"a": ("READY", "")}, version=5)

    assert (old.version, new.version) == (0, 5)
    assert isinstance(old.routes["a"], VariantRoute)
    assert old.routes["a"].state == "LOADING"


def test_an_ensemble_over_an_experiment_keeps_no_whole_answers() -> None:
    """What one caller's arm answered would be everybody's."""
    content = config().model_dump()
    content["ensembles"]["outer"]["response_cache"] = {"enabled": True}

    with pytest.raises(ConfigError, match=r"ensembles\.outer\.response_cache.*experiment"):
        build_table(SquadronConfig.model_validate(content), {"a": facts(), "b": facts()})


def test_routes_carry_their_caches_settings() -> None:
    content = config().model_dump()
    content["variants"]["a"]["response_cache"] = {"enabled": True, "ttl_s": 5}
    content["ensembles"]["inner"]["steps"][0]["model"] = "a"
    content["ensembles"]["inner"]["response_cache"] = {"enabled": True}
    table = build_table(SquadronConfig.model_validate(content), {"a": facts(), "b": facts()})

    for name, is_cached in {"a": True, "b": False, "inner": True, "outer": False}.items():
        route = table.routes[name]
        assert isinstance(route, VariantRoute | EnsembleRoute)
        assert route.response_cache.enabled is is_cached


def test_an_ensemble_can_be_an_arm_of_an_experiment() -> None:
    changed = config(
        experiments={"e": {"split": {"a": 1, "b": 1}}, "f": {"split": {"a": 1, "outer": 1}}}
    )
    made = build_table(changed, {"a": facts(), "b": facts()})

    route = made.routes["f"]
    assert isinstance(route, ExperimentRoute)
    assert not route.is_of_variants
    assert [variant.name for variant in made.variants_of("f")] == ["a", "a", "b"]


def test_models_that_call_each_other_in_a_circle_are_refused_naming_the_step() -> None:
    step = {"model": "f", "outputs": {"y": "y"}}
    circle = config(
        experiments={"f": {"split": {"loop": 1}}},
        ensembles={"loop": {"inputs": ["x"], "outputs": ["y"], "steps": [step]}},
    )

    with pytest.raises(ConfigError, match=r"experiments.f.split: 'loop' depends on 'f'.*f, loop"):
        build_table(circle, {"a": facts(), "b": facts()})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"split": {"a": 1, "b": 1}}, "a split is among its steps"),
        ({"model": "a", "fallback": "b"}, "a fallback may answer for a member"),
        ({"model": "e"}, "an experiment is among its models"),
    ],
)
def test_what_may_answer_differently_the_next_time_is_not_cached(
    change: dict[str, object], why: str
) -> None:
    step = {**change, "outputs": {"y": "y"}}
    section = {"inputs": ["x"], "outputs": ["y"], "steps": [step]}
    cached = config(ensembles={"c": {**section, "response_cache": {"enabled": True}}})

    with pytest.raises(ConfigError, match=rf"ensembles.c.response_cache.enabled: {why}"):
        build_table(cached, {"a": facts(), "b": facts()})


def with_versions(older: str = "1") -> RoutingTable:
    """`a` is version 2, `a-old` the older one of it."""
    variants = {"a": {"card": CARD}, "a-old": {"card": CARD, "version_of": "a"}}
    versions = {"a": "2", "a-old": older}
    return build_table(
        config(variants=variants, experiments={}, ensembles={}),
        {name: replace(facts(), version=version) for name, version in versions.items()},
    )


def test_versions_are_found_under_the_one_name_also_when_they_are_unloaded() -> None:
    table = with_versions()

    assert table.versions_of("a") == {"1": "a-old", "2": "a"}
    assert table.versions_of("a-old") == {}
    gone = table.without(["a", "a-old"])
    assert gone.versions_of("a") == {"1": "a-old", "2": "a"}
    assert gone.state_of("a-old") == ("UNAVAILABLE", "unloaded")
    kept = gone.with_states({}, version=7)
    assert kept.versions_of("a") == table.versions_of("a")


def test_a_version_above_the_name_itself_is_an_error() -> None:
    with pytest.raises(ConfigError, match="it is version 3; a itself, the highest, is 2"):
        with_versions("3")


@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.booleans(), st.lists(st.integers(0, 2**62), max_size=3))
    )
)
def test_versions_grow_whatever_the_clock_does(
    passes: list[tuple[int, bool, list[int]]],
) -> None:
    """Also beyond those that doors have of an earlier controller; `restarts` forgets the rest."""
    told, known = [0], 0
    for now_ns, restarts, at_doors in passes:
        known = max([told[-1] if restarts else known, known, *at_doors])
        known = next_version(now_ns, known)
        assert known > max([told[-1], *at_doors])
        told.append(known)
