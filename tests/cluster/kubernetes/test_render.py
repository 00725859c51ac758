"""The config in the manifests is the one of `serve_configs`."""

from __future__ import annotations

import pytest
import yaml

from cluster.config.yaml_file import read_mapping
from cluster.errors import ConfigError
from cluster.kubernetes.render import replaced_block, serve_config
from tests.cluster.kubernetes.manifests import ROOT, service

PROD = ROOT / "serve_configs" / "prod.yaml"


def test_the_manifest_holds_what_the_file_renders_to() -> None:
    rendered = serve_config(read_mapping(PROD), store="/models", source=str(PROD))

    assert service()["spec"]["serveConfigV2"] == rendered


def test_doors_listen_on_the_pods_interfaces_and_models_stay_the_same() -> None:
    content = read_mapping(PROD)
    rendered = yaml.safe_load(serve_config(content, store="/models", source="prod"))

    args = rendered["applications"][0]["args"]
    assert {args["server"][door]["host"] for door in ("http", "grpc", "metrics")} == {"0.0.0.0"}
    assert args["store"]["path"] == "/models"
    assert args["variants"] == content["applications"][0]["args"]["variants"]  # type: ignore[index]


def test_lines_are_json_in_pods_unless_the_file_says_otherwise() -> None:
    content = read_mapping(PROD)
    rendered = yaml.safe_load(serve_config(content, store="/models", source="prod"))
    server = content["applications"][0]["args"]["server"]  # type: ignore[index]
    server["logging"] = {"format": "text", "access_log": True}
    said = yaml.safe_load(serve_config(content, store="/models", source="prod"))

    assert rendered["logging_config"] == {"encoding": "JSON", "enable_access_log": False}
    assert rendered["applications"][0]["args"]["server"]["logging"] == {"format": "json"}
    assert said["applications"][0]["args"]["server"]["logging"] == server["logging"]


def test_a_wrong_config_is_not_rendered() -> None:
    with pytest.raises(ConfigError, match="import_path"):
        serve_config({"applications": []}, store="/models", source="empty.yaml")


def test_no_secret_is_rendered_into_a_manifest() -> None:
    for runtime_env, server, key in (
        ({"env_vars": {"HF_TOKEN": "hunter2"}}, {}, "runtime_env.env_vars.HF_TOKEN"),
        ({}, {"state_redis": {"url": "redis://:hunter2@r"}}, "state_redis.url"),
    ):
        content = read_mapping(PROD)
        app = content["applications"][0]  # type: ignore[index]
        app["runtime_env"] = runtime_env
        app["args"]["server"] = server
        with pytest.raises(ConfigError, match=key) as wrong:
            serve_config(content, store="/models", source="prod")
        assert "hunter2" not in wrong.value.message


def test_tls_in_the_pod_is_not_rendered_for_the_probes_speak_none() -> None:
    content = read_mapping(PROD)
    args = content["applications"][0]["args"]  # type: ignore[index]
    args["server"]["tls"] = {"cert": "server.pem", "key": "server.key"}

    with pytest.raises(ConfigError, match=r"server\.tls: .*TLS at the gateway"):
        serve_config(content, store="/models", source="prod")


def test_a_manifest_takes_a_new_config_and_keeps_everything_else() -> None:
    manifest = "spec:\n  serveConfigV2: |\n    old: 1\n    two: 2\n  rayClusterConfig: {}\n"

    after = replaced_block(manifest, "new:\n  deep: 1\n")

    assert yaml.safe_load(after)["spec"]["rayClusterConfig"] == {}
    assert yaml.safe_load(yaml.safe_load(after)["spec"]["serveConfigV2"]) == {"new": {"deep": 1}}


def test_a_manifest_without_the_block_is_left_alone() -> None:
    with pytest.raises(ConfigError, match="serveConfigV2"):
        replaced_block("kind: RayService\n", "a: 1\n")
