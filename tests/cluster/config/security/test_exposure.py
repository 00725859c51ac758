"""What stands open to other machines, and what the operator is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.security.exposure import is_loopback, open_doors
from cluster.config.serve_file import read_serve_file
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError

EVERYWHERE = {"http": {"host": "0.0.0.0", "port": 8000}}
TLS = {"cert": "cert.pem", "key": "key.pem"}


def server(**values: Any) -> ServerConfig:
    return ServerConfig.model_validate(values)


def test_every_port_is_on_loopback_unless_told_otherwise() -> None:
    default = server()

    assert [each.host for each in (default.http, default.grpc, default.metrics)] == [
        "127.0.0.1"
    ] * 3
    assert open_doors(default) == ()


def test_an_open_door_without_keys_or_with_keys_in_the_clear_is_told() -> None:
    (without_keys,) = open_doors(server(**EVERYWHERE))
    (in_the_clear,) = open_doors(server(**EVERYWHERE, api_keys="keys.json"))

    assert "http 0.0.0.0" in without_keys
    assert "server.api_keys is not set" in without_keys
    assert "keys travel in the clear" in in_the_clear
    assert open_doors(server(**EVERYWHERE, api_keys="keys.json", tls=TLS)) == ()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("node-7.local", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def serve_file(folder: Path, root: Path, host: str, **more: Any) -> Path:
    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text()) | more
    content["http_options"]["host"] = host
    content["applications"][0]["args"]["server"] = {"tls": TLS}
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_serve_s_own_ingress_is_no_way_round_tls(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"http_options\.host: .*way round server\.tls"):
        read_serve_file(serve_file(tmp_path, root, "0.0.0.0"))

    assert read_serve_file(serve_file(tmp_path, root, "127.0.0.1"))
    assert read_serve_file(serve_file(tmp_path, root, "0.0.0.0", proxy_location="Disabled"))
