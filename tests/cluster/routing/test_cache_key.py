"""Which requests are the same to the response cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.cache import ResponseCacheConfig
from cluster.config.ensemble import EnsembleConfig
from cluster.config.variant import BatchingConfig
from cluster.requests import InferenceRequest, RequestedOutput
from cluster.routing.cache_key import (
    answered_models,
    cache_key,
    cached_models,
    fingerprint,
    is_cacheable,
)
from cluster.routing.ensembles.plan import plan_ensemble
from cluster.routing.split import Arm
from cluster.routing.table import (
    EnsembleRoute,
    ExperimentRoute,
    Route,
    RoutingTable,
    VariantFacts,
    VariantRoute,
)
from cluster.tensors import Array, Signature, TensorSpec, tensor

FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


def request(**inputs: Array) -> InferenceRequest:
    return InferenceRequest(
        model="m", inputs=tuple(tensor(name, array) for name, array in inputs.items())
    )


def key_of(asked: InferenceRequest, computed_by: str = "v", namespace: str = "") -> bytes:
    return cache_key(asked, SIGNATURE, computed_by=computed_by, namespace=namespace)


def test_the_same_tensors_have_the_same_key_however_they_lie_in_memory() -> None:
    columns_first = np.asfortranarray(FLOATS)

    assert key_of(request(x=FLOATS)) == key_of(request(x=columns_first))
    assert key_of(request(x=FLOATS, y=FLOATS + 1)) == key_of(request(y=FLOATS + 1, x=FLOATS))


@pytest.mark.parametrize(
    "other",
    [
        request(x=FLOATS + 1),
        request(x=FLOATS.reshape(3, 2)),
        request(x=FLOATS.view(np.int32)),
        request(z=FLOATS),
        request(x=FLOATS, y=FLOATS),
    ],
)
def test_other_inputs_have_another_key(other: InferenceRequest) -> None:
    assert key_of(other) != key_of(request(x=FLOATS))


def test_who_computes_it_and_for_whom_are_part_of_the_key() -> None:
    asked = request(x=FLOATS)

    keys = {key_of(asked), key_of(asked, computed_by="v2"), key_of(asked, namespace="tenant")}

    assert len(keys) == 3


def test_wanted_outputs_and_own_parameters_are_part_of_the_key() -> None:
    def asking(**changes: object) -> bytes:
        inputs = request(x=FLOATS).inputs
        return key_of(InferenceRequest(model="m", inputs=inputs, **changes))  # type: ignore[arg-type]

    plain = asking()
    wanted = (RequestedOutput(name="y"),)

    assert asking(outputs=wanted) == plain
    assert asking(outputs=(RequestedOutput(name="y", is_binary=True),)) == asking(outputs=wanted)
    assert asking(outputs=(RequestedOutput(name="logits"),)) != plain
    assert asking(parameters={"top": 1}) != plain
    assert asking(parameters={"top": 1}) != asking(parameters={"top": True})
    assert asking(parameters={"timeout": 5, "priority": 2}, request_id="r", tenant="t") == plain


@given(
    first=st.lists(st.binary(max_size=5), max_size=4),
    second=st.lists(st.binary(max_size=5), max_size=4),
)
def test_texts_have_the_same_key_only_when_they_are_the_same(
    first: list[bytes], second: list[bytes]
) -> None:
    def texts(items: list[bytes]) -> InferenceRequest:
        array = np.empty(len(items), dtype=np.object_)
        array[:] = items
        return request(x=array)

    assert (key_of(texts(first)) == key_of(texts(second))) == (first == second)


@pytest.mark.parametrize(
    ("sequence_id", "expected"), [(None, True), (0, True), ("", True), (7, False), ("s", False)]
)
def test_requests_of_a_sequence_are_not_cacheable(
    sequence_id: int | str | None, expected: bool
) -> None:
    parameters = {} if sequence_id is None else {"sequence_id": sequence_id}

    asked = InferenceRequest(model="m", inputs=(), parameters=parameters)  # type: ignore[arg-type]

    assert is_cacheable(asked) is expected


SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),),
)


def table(weights: tuple[float, float] = (1, 1), **fingerprints: str) -> RoutingTable:
    """Variants `a` and `b`, and ensemble `e`, their mean."""
    routes: dict[str, Route] = {}
    for name in ("a", "b"):
        facts = VariantFacts(
            version="1",
            platform="",
            backend="",
            signature=SIGNATURE,
            is_batched=True,
            fingerprint=fingerprints.get(name, "same"),
        )
        routes[name] = VariantRoute(
            name=name,
            deployment=name,
            facts=facts,
            batching=BatchingConfig(),
            num_replicas=1,
            is_optional=False,
        )
    steps = [
        {"model": "a", "outputs": {"y": "ya"}},
        {"model": "b", "outputs": {"y": "yb"}},
        {"combine": "mean", "inputs": ["ya", "yb"], "weights": weights, "output": "y"},
    ]
    config = EnsembleConfig.model_validate({"inputs": ["x"], "outputs": ["y"], "steps": steps})
    plan = plan_ensemble("e", config, {"a": SIGNATURE, "b": SIGNATURE}, {})
    routes["e"] = EnsembleRoute(name="e", plan=plan)
    return RoutingTable(version=1, routes=routes)


def test_an_experiment_is_cached_when_one_of_its_arms_is() -> None:
    routes = dict(table().routes)
    arms = (Arm(variant="a", weight=1), Arm(variant="b", weight=1))
    routes["ab"] = ExperimentRoute(name="ab", arms=arms, sticky_header="", signature=SIGNATURE)
    routes["bb"] = ExperimentRoute(name="bb", arms=arms[1:], sticky_header="", signature=SIGNATURE)
    a = routes["a"]
    assert isinstance(a, VariantRoute)
    routes["a"] = replace(a, response_cache=ResponseCacheConfig(enabled=True))

    assert cached_models(RoutingTable(version=1, routes=routes)) == {"a", "ab"}


def test_an_ensembles_answer_changes_with_its_members_and_its_steps() -> None:
    found = {
        fingerprint(table(), "e"),
        fingerprint(table(b="retrained"), "e"),
        fingerprint(table(weights=(1, 3)), "e"),
    }

    assert len(found) == 3
    assert fingerprint(table(), "e") == fingerprint(table(), "e")
    assert fingerprint(table(), "a") != fingerprint(table(), "b")


def cached(routes: Mapping[str, Route], *names: str) -> dict[str, Route]:
    """The routes, with the caches of some switched on."""
    found = dict(routes)
    for name in names:
        route = found[name]
        assert isinstance(route, VariantRoute | EnsembleRoute)
        found[name] = replace(route, response_cache=ResponseCacheConfig(enabled=True))
    return found


def test_what_is_unloaded_is_not_answered_for_nor_what_needs_it() -> None:
    routes = cached(table().routes, "a", "b", "e")
    arms = (Arm(variant="a", weight=1), Arm(variant="b", weight=1))
    routes["ab"] = ExperimentRoute(name="ab", arms=arms, sticky_header="", signature=SIGNATURE)
    whole = RoutingTable(version=1, routes=routes)

    assert answered_models(whole) == {"a", "b", "e"}
    assert answered_models(whole.without(["a"])) == {"b"}
    assert cached_models(whole.without(["a"])) == {"b", "e", "ab"}


def test_an_answer_of_a_decoupled_model_is_not_kept() -> None:
    routes = cached(table().routes, "a", "b", "e")
    a = routes["a"]
    assert isinstance(a, VariantRoute)
    routes["a"] = replace(a, facts=replace(a.facts, is_decoupled=True))

    assert answered_models(RoutingTable(version=1, routes=routes)) == {"b"}
