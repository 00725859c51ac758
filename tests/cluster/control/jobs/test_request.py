from __future__ import annotations

from typing import Any

import pytest

from cluster.config.squadron import SquadronConfig
from cluster.control.jobs.request import (
    OptimizeRequest,
    ProfileRequest,
    check_can,
    check_served,
    job_request,
)
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.routing.table import RoutingTable, VariantFacts, build_table
from cluster.tensors import Signature


def make_table(unavailable: str = "") -> RoutingTable:
    """`a` and `b` with an experiment of both."""
    facts = VariantFacts(
        version="1",
        platform="onnxruntime",
        backend="onnxruntime",
        signature=Signature(inputs=(), outputs=()),
        is_batched=True,
        unavailable=unavailable,
    )
    config = SquadronConfig.model_validate(
        {
            "variants": {
                name: {"source": name, "optional": bool(unavailable)} for name in ("a", "b")
            },
            "experiments": {"both": {"split": {"a": 0.5, "b": 0.5}}},
        }
    )
    return build_table(config, {"a": facts, "b": facts})


def test_each_kind_has_its_own_keys_and_defaults() -> None:
    profile = job_request({"kind": "profile", "model": "m"})
    search = job_request({"kind": "optimize", "model": "m", "options": {"precision": "int8"}})

    assert profile == ProfileRequest(kind="profile", model="m")
    assert isinstance(search, OptimizeRequest)
    assert search.options == {"precision": "int8"}
    assert (search.level, search.target, search.threads) == ("balanced", "latency", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "a JSON object"),
        ({}, "must be one of profile, optimize"),
        ({"kind": "train", "model": "m"}, "must be one of profile, optimize"),
        ({"kind": "profile"}, "'model'"),
        ({"kind": "profile", "model": "m", "level": "max"}, "'level' is no key"),
        ({"kind": "profile", "model": "m", "num_calls": 0}, "'num_calls' is '0'"),
        ({"kind": "profile", "model": "m", "num_calls": "3"}, "'num_calls' is '3'"),
        ({"kind": "profile", "model": "m", "num_calls": True}, "'num_calls' is 'True'"),
        ({"kind": "profile", "model": "m", "timeout_s": "60"}, "'timeout_s' is '60'"),
        ({"kind": "profile", "model": "m", "id": "../../etc"}, "'id'"),
        ({"kind": "profile", "model": "m", "timeout_s": 1e9}, "'timeout_s'"),
        ({"kind": "optimize", "model": "m", "target_device": "mobile"}, "'target_device'"),
        ({"kind": "optimize", "model": "m", "candidates": ["../secrets"]}, "'candidates.0'"),
        ({"kind": "optimize", "model": "m", "candidates": ["/etc/passwd"]}, "'candidates.0'"),
        ({"kind": "optimize", "model": "m", "add_to_store": "../x"}, "'add_to_store'"),
        ({"kind": "optimize", "model": "m", "options": {"a": [1]}}, "'options.a"),
        ({"kind": "optimize", "model": "m", "options": {"num_threads": 10**5}}, "256 at most"),
        ({"kind": "optimize", "model": "m", "options": {"batch_size": 10**6}}, "1024 at most"),
        ({"kind": "optimize", "model": "m", "limits": {"min_cosine": 2}}, "'limits.min_cosine'"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(content: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        job_request(content)


def test_a_job_is_of_a_variant_that_can_be_served_here() -> None:
    table = make_table()

    assert check_served("a", table).name == "a"
    assert check_served("a/1", table).name == "a"
    with pytest.raises(ModelNotFound, match="no model 'a/2'"):
        check_served("a/2", table)
    with pytest.raises(ModelNotFound, match="no model 'nobody'"):
        check_served("nobody", table)
    with pytest.raises(InvalidRequest, match="'both' is an experiment; ask for one of a, b"):
        check_served("both", table)
    with pytest.raises(InvalidRequest, match="no GPU"):
        check_served("a", make_table(unavailable="no GPU"))


def test_what_counts_nothing_and_what_has_no_graph_is_refused_with_what_to_do() -> None:
    profile = ProfileRequest(kind="profile", model="m")
    search = OptimizeRequest(kind="optimize", model="m")

    check_can(profile, model_format="onnx", engine="onnxruntime")
    check_can(search, model_format="torch_export", engine="torch")
    with pytest.raises(InvalidRequest, match="profile --live"):
        check_can(profile, model_format="python", engine="python")
    with pytest.raises(InvalidRequest, match="GET /metrics"):
        check_can(profile, model_format="causal_lm", engine="vllm")
    with pytest.raises(InvalidRequest, match="no graph"):
        check_can(search, model_format="python", engine="python")
    with pytest.raises(InvalidRequest, match="kv_cache_dtype"):
        check_can(search, model_format="causal_lm", engine="torch")
