"""Serve's keys and values, against the schema of the Serve that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kubernetes.serve.schema import check_serve_config
from tests.cluster.kubernetes.manifests import ROOT
from tests.cluster.kubernetes.test_rules import serve_schema_here

CONFIGS = sorted((ROOT / "serve_configs").glob("*.yaml"))


def told(config: object) -> list[tuple[str, str]]:
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    found = check_serve_config({"spec": {"serveConfigV2": text}}, serve_schema_here())
    return [(each.rule, each.message) for each in found]


def config(**app: Any) -> dict[str, Any]:
    return {"applications": [{"name": "a", "import_path": "theirs:app", **app}]}


@pytest.mark.parametrize(
    ("wrong", "where", "meant"),
    [
        ({**config(), "proxy_locaton": "EveryNode"}, "proxy_locaton", "proxy_location"),
        ({**config(), "http_options": {"prot": 8000}}, "http_options.prot", "port"),
        (config(route_prefx="/a"), "applications.0.route_prefx", "route_prefix"),
        (
            config(deployments=[{"name": "d", "num_replica": 2}]),
            "applications.0.deployments.0.num_replica",
            "num_replicas",
        ),
        (
            config(deployments=[{"name": "d", "autoscaling_config": {"max_replica": 2}}]),
            "applications.0.deployments.0.autoscaling_config.max_replica",
            "max_replicas",
        ),
        (
            config(deployments=[{"name": "d", "ray_actor_options": {"num_cpu": 2}}]),
            "applications.0.deployments.0.ray_actor_options.num_cpu",
            "num_cpus",
        ),
        ({**config(), "logging_config": {"encodng": "JSON"}}, "logging_config.encodng", "encoding"),
    ],
)
def test_a_key_that_serve_would_pass_over_is_named_with_the_one_that_was_meant(
    wrong: object, where: str, meant: str
) -> None:
    ((rule, message),) = told(wrong)

    assert rule == "serve-unknown-key"
    assert message.startswith(f"{where}: unknown key")
    assert f"did you mean {meant!r}" in message
    assert "allowed: " in message


@pytest.mark.parametrize(
    "free",
    [
        config(args={"anything": {"goes": 1}}),
        config(deployments=[{"name": "d", "user_config": {"any": 1}}]),
        config(runtime_env={"env_vars": {"A": "1"}}),
        config(deployments=[{"name": "d", "num_replicas": "auto"}]),
    ],
)
def test_what_is_the_applications_own_is_free(free: object) -> None:
    assert told(free) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (config(deployments=[{"name": "d", "num_replicas": 0}]), "num_replicas: value 0; allowed"),
        ({**config(), "proxy_location": "Somewhere"}, "proxy_location: value Somewhere; allowed"),
        ({**config(), "target_capacity": 101}, "target_capacity: value 101; allowed"),
    ],
)
def test_a_value_that_serve_refuses_is_named_with_what_is_allowed(
    wrong: object, words: str
) -> None:
    ((rule, message),) = told(wrong)

    assert rule == "serve-value"
    assert words in message


def test_a_key_that_appears_twice_is_named() -> None:
    ((rule, message),) = told("applications: []\napplications: [{name: a, import_path: 'a:b'}]\n")

    assert rule == "serve-yaml"
    assert "'applications' appears twice" in message


@pytest.mark.parametrize("file", CONFIGS, ids=lambda each: each.name)
def test_our_own_configs_are_right(file: Path) -> None:
    assert [each for each in told(file.read_text()) if each[0] != "serve-proxies"] == []
